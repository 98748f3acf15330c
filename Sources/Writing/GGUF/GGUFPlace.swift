import Bytes
import Checkpoints
import GGUF

/// The directory where GGUF files are to be written, with the files that lie there already.
struct GGUFPlace {
  /// Ends with `/`, or is empty for the working directory.
  private let parent: String
  /// Nil when there is none: whoever writes says so.
  private let directory: InputDirectory?
  /// The names of the files that are to be written.
  private let names: [String]

  init(path: String, names: [String]) {
    parent = String(path.dropLast(FileName.last(of: path).count))
    directory = try? InputDirectory(path: parent.isEmpty ? "." : parent)
    self.names = names
  }

  func path(_ name: String) -> String { parent + name }

  /// - Throws: `cannotCreate` when a file that would be replaced is none of GGUF: its name says that it was, so it is
  ///   something that somebody may want to look at.
  func checkReplaced() throws(Failure) {
    for name in names { try check(name) }
  }

  private func check(_ name: String) throws(Failure) {
    guard let directory, directory.isFile(name) else { return }
    guard let file = try? directory.open(name) else {
      throw Failure(.cannotCreate, "already exists and cannot be read; remove it yourself", file: name)
    }
    guard (try? GGUFHeader.isGGUF(file)) == true else {
      throw Failure(.cannotCreate, "already exists and is not a GGUF file; remove it yourself", file: name)
    }
  }

  /// Whether a manifest is there whose model is gone.
  func isOrphan(_ manifest: String) -> Bool {
    guard let directory, directory.isFile(manifest), let model = GGUFSidecar.file(of: manifest),
      !directory.contains(model), let file = try? directory.open(manifest),
      let beginning = try? file.bytes(in: 0..<min(64, file.size))
    else { return false }
    return String(decoding: beginning, as: UTF8.self).contains("\"nibble-manifest\"")
  }

  /// Files of the same model in another number of parts, or in one, and the manifest beside them.
  func otherParts() throws(Failure) -> [String] {
    guard let directory, let first = names.first else { return [] }
    let own = GGUFFileName(first)
    let stem = own?.stem ?? String(first.dropLast(".gguf".count))
    let found = try directory.names().filter { name in
      let file = GGUFSidecar.file(of: name) ?? name
      guard let part = GGUFFileName(file), part.total > 1 else {
        return file == stem + ".gguf" && file != first && directory.isFile(file)
      }
      return part.stem == stem && part.total != own?.total
    }
    for name in found where name.hasSuffix(".gguf") { try check(name) }
    return found
  }

  /// - Returns: what is to be said of those that stay.
  func remove(_ parts: [String], inputs: [FileIdentity]) -> [Warning] {
    var kept: [String] = []
    var failed: [String] = []
    for name in parts {
      let model = GGUFSidecar.file(of: name) ?? name
      if let identity = FileIdentity(path: path(model)), inputs.contains(where: { $0.isSameFile(as: identity) }) {
        kept.append(name)
        continue
      }
      do throws(Failure) { try FileName.remove(path(name)) } catch { failed.append(name) }
    }
    var warnings: [Warning] = []
    if !kept.isEmpty { warnings.append("not removed, since they are what was read: \(names: kept)") }
    if !failed.isEmpty { warnings.append("old files of the model could not be removed: \(names: failed)") }
    return warnings
  }
}
