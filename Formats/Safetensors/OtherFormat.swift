import Bytes

/// Files that are taken for safetensors because of their name or place, known by their first bytes.
enum OtherFormat {
  /// A failure that says what a file is that cannot be safetensors; nil when it may be.
  static func failure(of file: InputFile) throws(Failure) -> Failure? {
    let beginning = try file.bytes(in: 0..<min(FileContent.length, file.size))
    guard !SafetensorsHeader.isLikely(beginning, fileSize: file.size) else { return nil }
    return recognized(by: beginning)?.located(file: file.name)
  }

  /// A failure that says what the file is; nil when it is nothing known.
  static func recognized(by beginning: [UInt8]) -> Failure? {
    guard let found = FileContent.signature(beginning) else {
      return FileContent.text(beginning).map { Failure(.malformed, "not a checkpoint: it is \($0)") }
    }
    let isModel = ["GGUF", "GGML", "ZIP", "pickle", "HDF5", "LFS"].contains { found.contains($0) }
    return Failure(
      isModel ? .unsupported : .malformed,
      "not a checkpoint: it is \(found)" + (isModel && !found.contains("LFS") ? ", expected a safetensors file" : ""))
  }
}
