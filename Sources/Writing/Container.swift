package import Bytes
package import Checkpoints
import Safetensors
package import Tensors

/// A file of a container: consecutive steps of a plan.
package struct ContainerFile: Sendable {
  var name: String
  var steps: Range<Int>
  /// Bytes of the file's tensors, padding included: as many as there can be of tensors whose sizes are bounds.
  var dataByteCount: Int
}

/// The files that stored tensors are put into: what stands before the data, and where each tensor begins.
package protocol Container: Sendable {
  var files: [ContainerFile] { get }
  /// Every tensor is filled up to a multiple of it.
  var alignment: Int { get }

  /// Everything of a file that stands before its data.
  ///
  /// - Parameters:
  ///   - room: bytes that were kept for it, which it fills; nil for as many as it needs.
  ///   - tensors: of the file, in order.
  func header(
    of file: Int, room: Int?, _ tensors: () throws(Failure) -> [StoredTensor]
  ) throws(Failure) -> [UInt8]
}

/// Safetensors files.
struct SafetensorsContainer: Container {
  var files: [ContainerFile]
  /// The metadata of every file.
  var metadata: [(key: String, value: String)] = [("format", "pt")]

  var alignment: Int { 1 }

  func header(
    of file: Int, room: Int?, _ tensors: () throws(Failure) -> [StoredTensor]
  ) throws(Failure) -> [UInt8] {
    var infos: [TensorInfo] = []
    for tensor in try tensors() {
      guard case .element(let type) = tensor.type else {
        throw Failure(.internal, "safetensors has no such type", tensor: tensor.name.string)
      }
      infos.append(try TensorInfo(name: tensor.name, type: type, shape: tensor.shape))
    }
    return try SafetensorsHeader.encode(infos, metadata: metadata, room: room)
  }
}

extension WritePlan {
  /// All tensors of a source, as they are, in one file of safetensors. The manifest does not tell of the source.
  ///
  /// - Throws: `malformed` when they are too large together.
  package init(file name: String, of source: any TensorSource) throws(Failure) {
    try self.init(
      file: name, of: source, stored: NoTensors(), origins: source.tensors.map { _ in .derived([]) }, metadata: nil)
  }

  /// The same, with the source's digests.
  ///
  /// - Parameter metadata: of the file; nil for what transformers writes.
  package init(
    file name: String, of source: any TensorSource, stored: any TensorSource, origins: [StoredOrigin],
    metadata: [(key: String, value: String)]?
  ) throws(Failure) {
    var total = 0
    for tensor in source.tensors {
      let (next, overflowed) = total.addingReportingOverflow(tensor.byteCount)
      if overflowed { throw Failure(.malformed, "the tensors together exceed 2^63 bytes") }
      total = next
    }
    let steps = origins.enumerated().map { Step(tensor: $0, encoder: 0, origin: $1) }
    var container = SafetensorsContainer(
      files: [ContainerFile(name: name, steps: 0..<steps.count, dataByteCount: total)])
    if let metadata { container.metadata = metadata }
    self.init(source: source, stored: stored, encoders: [CopyEncoder()], steps: steps, container: container)
  }
}
