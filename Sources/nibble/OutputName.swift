import Bytes

/// Checks of an output's name.
enum OutputName {
  /// Endings of files that no verb writes under the name it is given.
  private static let files = [
    ".safetensors", ".gguf", ".ggml", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack", ".onnx", ".npz",
    ".json",
    ".zip", ".tar", ".gz",
  ]

  /// Refuses the name of a file of another kind, which would become a directory of that name. What is there already has
  /// been named on purpose, and a slash at the end says what is meant.
  ///
  /// - Throws: `usage`.
  static func check(_ output: String) throws(Failure) {
    if output.hasSuffix(".gguf") || output.hasSuffix("/") || FileIdentity(path: output) != nil { return }
    guard let ending = files.first(where: { output.lowercased().hasSuffix($0) }) else { return }
    if ending == ".gguf" {
      throw Failure(.usage, "'\(output)' is no name for the output: a GGUF file's ends in .gguf, in small letters")
    }
    throw Failure(
      .usage,
      "'\(output)' is no name for the output: it is a directory, or a GGUF file whose name ends in .gguf, never a file "
        + "ending in \(ending)")
  }
}
