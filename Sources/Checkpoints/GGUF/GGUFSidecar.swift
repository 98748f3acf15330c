package import Bytes
import GGUF

/// The manifest of a GGUF model, which lies beside its files.
package struct GGUFSidecar {
  package static let suffix = ".nibble-manifest.json"

  package let directory: InputDirectory
  /// `MODEL.gguf.nibble-manifest.json`, of a split model `MODEL-00001-of-000NN.gguf.nibble-manifest.json`: the model
  /// and its split may lie side by side.
  package let name: String

  /// - Returns: nil when the path is not that of a GGUF model.
  package init?(path: String, _ format: CheckpointFormat) throws(Failure) {
    guard format.isGGUF else { return nil }
    if format.isDirectory {
      directory = try InputDirectory(path: path)
      let names = try directory.names()
      name = names.first { $0.hasSuffix(".gguf" + Self.suffix) } ?? "*.gguf" + Self.suffix
      return
    }
    let own = FileName.last(of: path)
    let parent = String(path.dropLast(own.count))
    directory = try InputDirectory(path: parent.isEmpty ? "." : parent)
    name = Self.name(for: own)
  }

  /// The file of the model that a manifest lies beside; nil for any other name.
  package static func file(of manifest: String) -> String? {
    manifest.hasSuffix(".gguf" + suffix) ? String(manifest.dropLast(suffix.count)) : nil
  }

  /// - Parameter file: the model's, or one of its split.
  package static func name(for file: String) -> String {
    guard var first = GGUFFileName(file), first.total > 1 else { return file + suffix }
    first.number = 1
    return first.text + suffix
  }
}
