import Bytes
import GGUF

/// The manifest of a GGUF model, which lies beside its files.
struct GGUFSidecar {
  static let suffix = ".nibble-manifest.json"

  let directory: InputDirectory
  /// `MODEL.gguf.nibble-manifest.json`, whether the model is split or not.
  let name: String

  /// - Returns: nil when the path is not that of a GGUF model.
  init?(path: String) throws(Failure) {
    guard try GGUFCheckpoint.isGGUF(path: path) else { return nil }
    if InputDirectory.exists(at: path) {
      directory = try InputDirectory(path: path)
      let names = try directory.names()
      name = names.first { $0.hasSuffix(".gguf" + Self.suffix) } ?? "*.gguf" + Self.suffix
      return
    }
    let own = fileName(of: path)
    let parent = String(path.dropLast(own.count))
    directory = try InputDirectory(path: parent.isEmpty ? "." : parent)
    name = Self.name(for: own)
  }

  /// - Parameter file: the model's, or one of its split.
  static func name(for file: String) -> String { (GGUFFileName(file).map { $0.stem + ".gguf" } ?? file) + suffix }
}
