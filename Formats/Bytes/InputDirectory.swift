#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// A directory whose entries are opened by plain name only, never through a link that leaves it.
///
/// The one link accepted is that of the Hugging Face cache: in `models--…/snapshots/REVISION/`, an entry
/// that points to `../../blobs/HEX`; in a folder of it, to `../../../blobs/HEX`.
public final class InputDirectory: Sendable {
  /// The path as the user typed it.
  public let path: String
  public let identity: FileIdentity
  private let descriptor: Descriptor
  /// How many folders below the directory that was named it is.
  private let depth: Int

  /// - Throws: `missing` when the directory cannot be opened.
  public convenience init(path: String) throws(Failure) {
    try self.init(at: AT_FDCWD, path, path: path)
  }

  convenience init(at parent: Int32, _ name: String, path: String) throws(Failure) {
    guard let descriptor = Descriptor(at: parent, name, O_RDONLY | O_DIRECTORY) else {
      throw .input("cannot open directory", file: path)
    }
    try self.init(descriptor, path: path, depth: 0)
  }

  private init(_ descriptor: consuming Descriptor, path: String, depth: Int) throws(Failure) {
    guard let status = descriptor.status else { throw .input("cannot examine", file: path) }
    self.path = path
    self.depth = depth
    identity = FileIdentity(status)
    self.descriptor = descriptor
  }

  /// A directory in this one; a link to one is none.
  public func folder(_ name: String) throws(Failure) -> InputDirectory {
    guard Self.isPlainComponent(name) else {
      throw Failure(.malformed, "'\(name)' is not a plain name of a folder", file: path)
    }
    guard let opened = Descriptor(at: descriptor.number, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW) else {
      throw .input("cannot open directory", file: "\(path)/\(name)")
    }
    return try InputDirectory(opened, path: "\(path)/\(name)", depth: depth + 1)
  }

  /// True when `path` is a directory (a link to one counts).
  public static func exists(at path: String) -> Bool {
    var status = stat()
    return SystemCall.succeeds { unsafe stat(path, &status) } && status.kind == S_IFDIR
  }

  /// The kind of an entry, links not followed.
  public enum Kind: Sendable { case file, directory, link, other }

  /// All entries but `.` and `..`, sorted by bytes. Names that are not UTF-8 are an error.
  public func entries() throws(Failure) -> [(name: String, kind: Kind)] {
    // A descriptor of its own: fdopendir takes the one it is given.
    let copy = SystemCall.value { unsafe openat(descriptor.number, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
    guard let copy, let stream = unsafe fdopendir(copy) else { throw .input("cannot list", file: path) }
    defer { _ = unsafe closedir(stream) }
    var found: [(name: String, kind: Kind)] = []
    while let entry = unsafe readdir(stream) {
      let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
        unsafe $0.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(validatingCString: $0) }
      }
      guard let name else { throw Failure(.malformed, "holds a file whose name is not UTF-8", file: path) }
      if name == "." || name == ".." { continue }
      found.append((name, kind(of: name)))
    }
    return found.sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
  }

  private func kind(of name: String) -> Kind {
    var status = stat()
    guard SystemCall.succeeds({ unsafe fstatat(descriptor.number, name, &status, AT_SYMLINK_NOFOLLOW) }) else {
      return .other
    }
    return switch status.kind {
    case S_IFREG: .file
    case S_IFDIR: .directory
    case S_IFLNK: .link
    default: .other
    }
  }

  /// Names of the regular files (and cache links), sorted by bytes.
  public func names() throws(Failure) -> [String] {
    try entries().filter { $0.kind == .file || $0.kind == .link }.map(\.name)
  }

  public func contains(_ name: String) -> Bool {
    Self.isPlainComponent(name) && kind(of: name) != .other
  }

  /// Whether an entry is a regular file, not a link to one.
  public func isFile(_ name: String) -> Bool { Self.isPlainComponent(name) && kind(of: name) == .file }

  /// One path component that stays in its directory on any system.
  public static func isPlainComponent(_ name: String) -> Bool {
    let bytes = name.utf8
    return !bytes.isEmpty && bytes.count <= 255 && name != "." && name != ".."
      && !bytes.contains { $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: "\\") || $0 < 0x20 || $0 == 0x7F }
  }

  /// The most folders in front of a file's name.
  public static let depthLimit = 3

  /// One plain component, or up to `depthLimit` of them and a file's name, put together with `/`.
  public static func isPlainPath(_ path: String) -> Bool {
    let parts = path.split(separator: "/", omittingEmptySubsequences: false)
    return parts.count <= depthLimit + 1 && parts.allSatisfy { isPlainComponent(String($0)) }
  }

  public func contains(path: String) -> Bool {
    let (folder, name) = Self.parted(path)
    guard let folder else { return contains(name) }
    return (try? self.folder(folder.first).contains(path: folder.rest)) ?? false
  }

  /// A file in this directory, or in a folder of it that is no link.
  public func open(path relative: String) throws(Failure) -> InputFile { try open(path: relative, as: relative) }

  private func open(path: String, as shown: String) throws(Failure) -> InputFile {
    let (folder, name) = Self.parted(path)
    guard let folder else { return try open(name, as: shown) }
    return try self.folder(folder.first).open(path: folder.rest, as: shown)
  }

  /// The first folder of a path and what follows it; nil for one without.
  private static func parted(_ path: String) -> (folder: (first: String, rest: String)?, name: String) {
    guard let slash = path.firstIndex(of: "/") else { return (nil, path) }
    return ((String(path[..<slash]), String(path[path.index(after: slash)...])), path)
  }

  /// - Throws: `malformed` when `name` is not one plain path component, or is a link other than the
  ///   cache's, or is not a regular file; `missing` when it cannot be opened.
  ///
  /// - Parameter shown: what failures call the file, where its name alone would not tell it from another.
  public func open(_ name: String, as shown: String? = nil) throws(Failure) -> InputFile {
    guard Self.isPlainComponent(name) else {
      throw Failure(.malformed, "'\(name)' is not a plain file name", file: path)
    }
    let shown = shown ?? name
    if let opened = Descriptor(at: descriptor.number, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW) {
      return try InputFile(opened, name: shown)
    }
    guard errno == ELOOP || errno == EMLINK else { throw .input("cannot open", file: shown) }
    return try openCacheLink(name, as: shown)
  }

  private func openCacheLink(_ name: String, as shown: String) throws(Failure) -> InputFile {
    let target = linkTarget(name) ?? ""
    let prefix = String(repeating: "../", count: depth) + "../../blobs/"
    let blob = String(target.dropFirst(prefix.count))
    let isHex = !blob.isEmpty && blob.utf8.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
    guard target.hasPrefix(prefix), isHex, isCacheSnapshot else {
      throw Failure(
        .malformed,
        "is a symbolic link to '\(target)'; only the links of a Hugging Face cache snapshot "
          + "(models--…/snapshots/REVISION/FILE -> ../../blobs/HEX) are followed: copy the file, or name it directly",
        file: shown)
    }
    guard let opened = Descriptor(at: descriptor.number, target, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW) else {
      throw .input("cannot open '\(target)'", file: shown)
    }
    return try InputFile(opened, name: shown)
  }

  private func linkTarget(_ name: String) -> String? {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = unsafe buffer.withUnsafeMutableBytes { bytes in
      let start = unsafe bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
      return unsafe start.map { start in
        SystemCall.value { unsafe readlinkat(descriptor.number, name, start, bytes.count) } ?? -1
      } ?? -1
    }
    guard count >= 0, count < buffer.count else { return nil }
    return String(validating: buffer[..<count], as: UTF8.self)
  }

  /// `…/models--X/snapshots/REVISION`, or a folder of one, by the directory's real path.
  private var isCacheSnapshot: Bool {
    guard let resolved = unsafe realpath(path, nil) else { return false }
    defer { unsafe free(resolved) }
    let parts = unsafe String(cString: resolved).split(separator: "/").dropLast(depth)
    guard parts.count >= 3 else { return false }
    return parts[parts.count - 2] == "snapshots" && parts[parts.count - 3].hasPrefix("models--")
  }
}
