package import Bytes
package import GGUF
import Quantization
package import Tensors

/// The tensors of a GGUF model under the names they have there, read as values: blocks are decoded to F32, everything
/// else is as it is stored.
package struct StoredGGUF: StoredCheckpoint {
  package let checkpoint: GGUFCheckpoint
  package let tensors: [TensorInfo]

  package init(path: String) throws(Failure) { try self.init(GGUFCheckpoint(path: path)) }

  package init(_ checkpoint: GGUFCheckpoint) throws(Failure) {
    self.checkpoint = checkpoint
    var tensors: [TensorInfo] = []
    tensors.reserveCapacity(checkpoint.tensors.count)
    for tensor in checkpoint.tensors {
      tensors.append(
        try TensorInfo(name: tensor.name, type: tensor.type.elementType ?? .f32, shape: tensor.shape))
    }
    self.tensors = tensors
  }

  package var files: CheckpointFiles { .gguf(self) }
  package var container: String { "gguf" }
  package var path: String { checkpoint.path }
  package var directory: InputDirectory? { checkpoint.directory }
  package var fileNames: [String] { checkpoint.files.map(\.name) }
  package var warnings: [Warning] { checkpoint.warnings }
  package var identities: [FileIdentity] { checkpoint.identities }

  package func index(of name: TensorName) -> Int? { checkpoint.index(of: name) }
  package func location(of index: Int) -> (file: String, offset: Int) { checkpoint.location(of: index) }
  package func typeName(of index: Int) -> String { checkpoint.tensors[index].type.name.uppercased() }
  package func storedByteCount(of index: Int) -> Int { checkpoint.tensors[index].byteCount }
  package func metadata(isWhole: Bool) throws(Failure) -> [MetadataEntry] {
    var entries: [MetadataEntry] = []
    for (key, value) in checkpoint.metadata.pairs {
      entries.append(
        MetadataEntry(
          key: key, json: try value.json(arrayLimit: isWhole ? Self.shownElements : 64), type: value.typeName,
          text: try value.summary()))
    }
    return entries
  }

  /// Beyond any vocabulary; of a longer array only type and count are told.
  private static let shownElements = 1 << 22

  package func checkUnchanged() throws(Failure) { try checkpoint.checkUnchanged() }

  package func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int)? {
    checkpoint.tensors[index].type.elementType == nil ? nil : try checkpoint.place(of: index)
  }

  package func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    let tensor = checkpoint.tensors[index]
    guard tensor.type.elementType == nil else {
      return try checkpoint.read(index, at: offset, into: &destination)
    }
    guard offset % 4 == 0, destination.byteCount % 4 == 0 else {
      throw Failure(.internal, "a piece cuts an element in two", tensor: tensor.name.string)
    }
    if destination.isEmpty { return }
    guard let type = tensor.type.blockType else {
      throw Failure(
        .unsupported, "is \(tensor.type.name), which only exists while a model computes", tensor: tensor.name.string)
    }
    // Whole blocks around the values that are wanted.
    let width = type.valuesPerBlock
    let values = offset / 4..<(offset + destination.byteCount) / 4
    let blocks = values.lowerBound / width..<(values.upperBound + width - 1) / width
    var stored = ScratchBuffer(byteCount: blocks.count * type.bytesPerBlock)
    var room = stored.mutableBytes
    try checkpoint.read(index, at: blocks.lowerBound * type.bytesPerBlock, into: &room)
    if values.count == blocks.count * width, destination.isAligned(to: 4) {
      var floats = destination.mutableFloats
      type.decode(stored.bytes, into: &floats)
      return
    }
    var decoded = ScratchBuffer(byteCount: 4 * blocks.count * width)
    var floats = decoded.mutableFloats
    type.decode(stored.bytes, into: &floats)
    let start = 4 * (values.lowerBound - blocks.lowerBound * width)
    destination.copy(from: decoded.bytes.extracting(start..<start + destination.byteCount))
  }
}
