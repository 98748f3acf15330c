import Bytes
import Tensors

extension OutputPlan {
  /// All tensors of a source, as they are, in one file. What the source was made from is not told.
  ///
  /// - Throws: `malformed` when they are too large together.
  init(file name: String, of source: any TensorSource) throws(Failure) {
    var total = 0
    for tensor in source.tensors {
      let (next, overflowed) = total.addingReportingOverflow(tensor.byteCount)
      if overflowed { throw Failure(.malformed, "the tensors together exceed 2^63 bytes") }
      total = next
    }
    let steps = source.tensors.indices.map { Step(tensor: $0, action: .copy, origin: .derived([])) }
    self.init(
      source: source, stored: NoTensors(), scheme: nil, steps: steps,
      shards: [Shard(name: name, steps: 0..<steps.count, dataByteCount: total)])
  }

  /// The manifest has a place for one source.
  private struct NoTensors: TensorSource {
    let tensors: [TensorInfo] = []

    func read(_ index: Int, at offset: Int, into destination: UnsafeMutableRawBufferPointer) throws(Failure) {
      throw Failure(.internal, "no tensor \(index)")
    }
  }
}
