package import Bytes
import GGUF
package import JSON
package import PackedWeights
package import Safetensors
package import Tensors

/// A model's tensors as they lie in files of one format. What packed weights need of it is named here again, for those
/// who know none.
package protocol StoredCheckpoint: StoredTensors {
  /// The files on disk as they are, with nothing dequantized or renamed.
  var files: CheckpointFiles { get }
  /// `safetensors` or `gguf`.
  var container: String { get }
  /// Who quantized weights that are read here as the values that they stand for, such as `MLX`; nil for none.
  var dequantizes: String? { get }
  /// The path as the user named it.
  var path: String { get }
  var directory: InputDirectory? { get }
  /// `config.json`, made of what the files say otherwise; nil where they say none.
  var madeConfig: JSONValue? { get }
  /// Names of the files that hold tensors, relative to the directory.
  var fileNames: [String] { get }
  /// Findings that are worth knowing and no errors, one line each.
  var warnings: [Warning] { get }
  /// Positions in `tensors` of those that are the very same as another, which is not among them.
  var repeated: [Int] { get }
  /// Device, inode and times of every file, as when it was opened.
  var identities: [FileIdentity] { get }

  func index(of name: TensorName) -> Int?
  func location(of index: Int) -> (file: String, offset: Int)
  /// The metadata that the files hold.
  ///
  /// - Parameter isWhole: long arrays element by element, not by their type and count.
  func metadata(isWhole: Bool) throws(Failure) -> [MetadataEntry]
  /// The open file and the offset in it of a tensor whose bytes are there as `read` gives them; nil when they are
  /// computed.
  func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int)?
  /// The type that a tensor has in its file.
  func typeName(of index: Int) -> String
  /// - Throws: `io` when a file is no longer what it was when it was opened.
  func checkUnchanged() throws(Failure)
}

/// A pair of a file's metadata, for a program and for a terminal.
package struct MetadataEntry: Sendable {
  package var key: String
  package var json: JSONValue
  /// The value's type, in a format that has types.
  package var type: String?
  package var text: String
}

extension StoredCheckpoint {
  package var dequantizes: String? { nil }
  package var headerTexts: [(key: String, value: String)] { [] }
  package var repeated: [Int] { [] }
  package var madeConfig: JSONValue? { nil }
}

/// Safetensors as they lie on disk.
package struct StoredSafetensors: StoredCheckpoint {
  package let checkpoint: SafetensorsCheckpoint
  /// Where the model's configuration is instead of beside the files.
  package var configured: InputDirectory?

  package init(path: String) throws(Failure) { checkpoint = try SafetensorsCheckpoint(path: path) }

  /// - Parameter opened: one of the directory's files, whose header is not read again.
  package init(directory: InputDirectory, opened: SafetensorsFile) throws(Failure) {
    checkpoint = try SafetensorsCheckpoint(directory: directory, opened: opened)
  }

  package var files: CheckpointFiles { .safetensors(self) }
  package var container: String { "safetensors" }
  package var path: String { checkpoint.path }
  package var directory: InputDirectory? { configured ?? checkpoint.directory }
  package var fileNames: [String] { checkpoint.files.map(\.name) + [checkpoint.indexName].compactMap(\.self) }
  package var warnings: [Warning] {
    checkpoint.warnings + (checkpoint.indexFault.map { ["\(list: [$0.file]): \($0.text)"] } ?? [])
  }
  package var identities: [FileIdentity] { checkpoint.identities }
  package var tensors: [TensorInfo] { checkpoint.tensors }

  package func index(of name: TensorName) -> Int? { checkpoint.index(of: name) }
  package func location(of index: Int) -> (file: String, offset: Int) { checkpoint.location(of: index) }
  package func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int)? {
    try checkpoint.place(of: index)
  }
  package func typeName(of index: Int) -> String { checkpoint.tensors[index].type.name }
  package var headerTexts: [(key: String, value: String)] { checkpoint.files.flatMap(\.metadata) }
  package func metadata(isWhole: Bool) -> [MetadataEntry] {
    checkpoint.metadata.map { MetadataEntry(key: $0.key, json: .string($0.value), text: $0.value) }
  }
  package func checkUnchanged() throws(Failure) { try checkpoint.checkUnchanged() }

  package func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    try checkpoint.read(index, at: offset, into: &destination)
  }
}
