package import Bytes
package import PyTorch
import Safetensors
package import Tensors

/// Files of `torch.save` as they lie on disk.
package struct StoredPyTorch: StoredCheckpoint {
  package let checkpoint: PyTorchCheckpoint
  /// For each of `tensors` its position among the checkpoint's; nil where all are there.
  private let kept: [Int]?
  private let positions: [TensorName: Int]
  package let tensors: [TensorInfo]

  package init(path: String) throws(Failure) {
    let checkpoint = try PyTorchCheckpoint(path: path) { (file) throws(Failure) in
      try ShardIndex(parsing: file.contents(limit: ShardIndex.sizeLimit)).entries
    }
    self.init(checkpoint, kept: nil)
  }

  private init(_ checkpoint: PyTorchCheckpoint, kept: [Int]?) {
    self.checkpoint = checkpoint
    self.kept = kept
    tensors = kept?.map { checkpoint.tensors[$0] } ?? checkpoint.tensors
    var positions: [TensorName: Int] = [:]
    for (index, position) in (kept ?? []).enumerated() { positions[checkpoint.tensors[position].name] = index }
    self.positions = positions
  }

  /// Names of tensors that are the very same view of the same values as another, which stays: the first that was saved.
  package var repeated: [TensorName] { checkpoint.tied.flatMap { $0.dropFirst() }.map { checkpoint.tensors[$0].name } }

  /// The same without them.
  package var withoutRepeated: StoredPyTorch {
    let repeated = Set(checkpoint.tied.flatMap { $0.dropFirst() })
    return StoredPyTorch(checkpoint, kept: checkpoint.tensors.indices.filter { !repeated.contains($0) })
  }

  private func position(_ index: Int) -> Int { kept?[index] ?? index }

  package var files: CheckpointFiles { .pytorch(self) }
  package var container: String { "pytorch" }
  package var path: String { checkpoint.path }
  package var directory: InputDirectory? { checkpoint.directory }
  package var fileNames: [String] { checkpoint.files.map(\.name) + [checkpoint.indexName].compactMap(\.self) }
  package var warnings: [Warning] { checkpoint.warnings }
  package var identities: [FileIdentity] { checkpoint.identities }

  package func index(of name: TensorName) -> Int? { kept == nil ? checkpoint.index(of: name) : positions[name] }
  package func location(of index: Int) -> (file: String, offset: Int) { checkpoint.location(of: position(index)) }
  package func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int)? {
    try checkpoint.place(of: position(index))
  }
  package func typeName(of index: Int) -> String { tensors[index].type.name }
  package func metadata(isWhole: Bool) -> [MetadataEntry] { [] }
  package func storedByteCount(of index: Int) -> Int { checkpoint.storedByteCount(of: position(index)) }
  package func checkUnchanged() throws(Failure) { try checkpoint.checkUnchanged() }

  package func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    try checkpoint.read(position(index), at: offset, into: &destination)
  }
}
