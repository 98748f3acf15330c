import Bytes

/// Files that are taken for safetensors because of their name, known by their first bytes.
enum OtherFormat {
  /// A failure that says what the file is; nil when it is nothing known.
  static func recognized(by beginning: [UInt8]) -> Failure? {
    func starts(with text: StaticString) -> Bool { beginning.starts(with: text.description.utf8) }
    let expected = "expected a safetensors file"
    if starts(with: "GGUF") { return Failure(.unsupported, "is a GGUF file, \(expected)") }
    if ["GGML", "lmgg", "GGMF", "fmgg", "GGJT", "tjgg", "ggml", "ggjt"].contains(where: { starts(with: $0) }) {
      return Failure(.unsupported, "is a model in the format before GGUF (GGML), \(expected)")
    }
    if starts(with: "PK\u{3}\u{4}") {
      return Failure(.unsupported, "is a ZIP archive (a PyTorch checkpoint?), \(expected)")
    }
    if beginning.count >= 2, beginning[0] == 0x80, (2...5).contains(beginning[1]) {
      return Failure(.unsupported, "is a Python pickle, which Nibble never executes, \(expected)")
    }
    if beginning.starts(with: [0x89, 0x48, 0x44, 0x46]) {
      return Failure(.unsupported, "is an HDF5 file, \(expected)")
    }
    if starts(with: "version https://") {
      return Failure(.unsupported, "is a Git LFS pointer, not the weights; run 'git lfs pull' first")
    }
    if starts(with: "{") { return Failure(.unsupported, "is a text that begins with '{' (JSON?), \(expected)") }
    return nil
  }
}
