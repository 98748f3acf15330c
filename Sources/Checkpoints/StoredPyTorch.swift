package import Bytes
package import PyTorch
import Safetensors
package import Tensors

/// Files of `torch.save` as they lie on disk.
package struct StoredPyTorch: StoredCheckpoint {
  package let checkpoint: PyTorchCheckpoint
  /// Where the model's configuration is instead of beside the files.
  package var configured: InputDirectory?

  package init(path: String) throws(Failure) {
    checkpoint = try PyTorchCheckpoint(path: path) { (file) throws(Failure) in
      try ShardIndex(parsing: file.contents(limit: ShardIndex.sizeLimit)).entries
    }
  }

  package var files: CheckpointFiles { .pytorch(self) }
  package var container: String { "pytorch" }
  package var path: String { checkpoint.path }
  package var directory: InputDirectory? { configured ?? checkpoint.directory }
  package var fileNames: [String] { checkpoint.files.map(\.name) + [checkpoint.indexName].compactMap(\.self) }
  package var warnings: [Warning] { checkpoint.warnings }
  package var identities: [FileIdentity] { checkpoint.identities }
  package var tensors: [TensorInfo] { checkpoint.tensors }
  /// The first that was saved of those that share their values stays.
  package var repeated: [Int] { checkpoint.tied.flatMap { $0.dropFirst() } }

  package func index(of name: TensorName) -> Int? { checkpoint.index(of: name) }
  package func location(of index: Int) -> (file: String, offset: Int) { checkpoint.location(of: index) }
  package func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int)? {
    try checkpoint.place(of: index)
  }
  package func typeName(of index: Int) -> String { tensors[index].type.name }
  package func metadata(isWhole: Bool) -> [MetadataEntry] { [] }
  package func storedByteCount(of index: Int) -> Int { checkpoint.storedByteCount(of: index) }
  package func checkUnchanged() throws(Failure) { try checkpoint.checkUnchanged() }

  package func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    try checkpoint.read(index, at: offset, into: &destination)
  }
}
