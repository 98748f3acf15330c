#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// The cache of the Hugging Face hub: `models--ORG--NAME/snapshots/REVISION/`, as far as messages need it.
public enum HubCache {
  /// Opens what the user named as a model or an adapter.
  ///
  /// - Throws: what opening it throws; for the name of a model of the hub that is not here, where it is.
  public static func openModel(at path: String) throws(Failure) -> InputFile {
    do throws(Failure) {
      return try InputFile(path: path, name: path.split(separator: "/").last.map(String.init))
    } catch {
      guard error.code == .missing, let hint = hint(forMissing: path) else {
        var failure = error
        failure.file = path
        throw failure
      }
      throw Failure(.missing, hint, file: path)
    }
  }

  /// Where a model of the hub is that was named instead of a path, or how it comes here; nil for what is no such name.
  static func hint(forMissing path: String) -> String? {
    var status = stat()
    guard isHubName(path), !SystemCall.succeeds({ unsafe stat(path, &status) }) else { return nil }
    let entry = "models--" + path.replacing("/", with: "--")
    let last = path.split(separator: "/").last.map(String.init) ?? path
    for root in roots {
      guard let directory = try? InputDirectory(path: root + "/" + entry), let found = snapshots(of: directory).first
      else { continue }
      return "is not a path here; the Hugging Face cache has it: \(found)"
    }
    return "is not on this disk; 'hf download \(path) --local-dir \(last)' fetches it"
  }

  /// A hint what to name instead of a directory of the cache that holds no model itself; nil for any other directory.
  public static func hint(for directory: InputDirectory) -> String? {
    let names = (try? directory.entries().filter { $0.kind == .directory }.map(\.name)) ?? []
    if names.contains("snapshots"), names.contains("blobs") || names.contains("refs") {
      let found = snapshots(of: directory)
      guard let first = found.first else {
        return "is an entry of the Hugging Face cache without a snapshot: its download was broken off"
      }
      let others = found.count > 1 ? ", or another one of its \(found.count)" : ""
      return "is an entry of the Hugging Face cache; name its snapshot: \(first)\(others)"
    }
    let entries = names.filter { $0.hasPrefix("models--") }
    if let first = entries.first {
      return "is the Hugging Face cache; name the snapshot of a model in it, such as "
        + "\(joined(directory.path, first))/snapshots/REVISION"
    }
    let parts = directory.path.split(separator: "/")
    if parts.last == "snapshots", parts.dropLast().last?.hasPrefix("models--") == true, let first = names.first {
      return "holds the snapshots of a model in the Hugging Face cache; name one: \(joined(directory.path, first))"
    }
    return nil
  }

  /// The paths of an entry's snapshots, that of `main` first.
  private static func snapshots(of entry: InputDirectory) -> [String] {
    guard let directory = try? InputDirectory(path: joined(entry.path, "snapshots")) else { return [] }
    let names = (try? directory.entries().filter { $0.kind == .directory }.map(\.name)) ?? []
    var main: String?
    if let refs = try? InputDirectory(path: joined(entry.path, "refs")),
      let bytes = try? refs.open("main").contents(limit: 256)
    {
      main = String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isWhitespace).first.map(String.init)
    }
    return (names.filter { $0 == main } + names.filter { $0 != main }).map { joined(directory.path, $0) }
  }

  private static func joined(_ path: String, _ name: String) -> String {
    path.hasSuffix("/") ? path + name : path + "/" + name
  }

  /// `ORG/NAME`, as the hub allows it, and no file's name.
  private static func isHubName(_ text: String) -> Bool {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    let isPlain = parts.allSatisfy { part in
      !part.isEmpty && !part.hasPrefix(".") && !part.hasPrefix("-")
        && part.utf8.allSatisfy { byte in
          (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
            || [0x2D, 0x2E, 0x5F].contains(byte)
        }
    }
    let endings = [".gguf", ".safetensors", ".json", ".bin", ".pt", ".pth"]
    return parts.count == 2 && isPlain && !endings.contains(where: text.hasSuffix)
  }

  /// Where huggingface_hub looks, in its order.
  private static var roots: [String] {
    if let root = variable("HF_HUB_CACHE") ?? variable("HUGGINGFACE_HUB_CACHE") { return [root] }
    if let home = variable("HF_HOME") { return [home + "/hub"] }
    if let cache = variable("XDG_CACHE_HOME") { return [cache + "/huggingface/hub"] }
    return variable("HOME").map { [$0 + "/.cache/huggingface/hub"] } ?? []
  }

  private static func variable(_ name: String) -> String? {
    guard let value = unsafe getenv(name) else { return nil }
    let text = unsafe String(cString: value)
    return text.isEmpty ? nil : text
  }
}
