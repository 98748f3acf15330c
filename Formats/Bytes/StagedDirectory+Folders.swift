#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

extension StagedDirectory.Files {
  /// A new file, in a folder that is made when it is not there yet.
  ///
  /// - Parameter path: plain names put together with `/`.
  /// - Throws: `cannotCreate` for any other path, and for a file that is there.
  public func create(path: String) throws(Failure) -> OutputFile {
    guard InputDirectory.isPlainPath(path) else {
      throw Failure(.cannotCreate, "'\(path)' is not a usable name for a file", file: path)
    }
    return try Self.create(path.split(separator: "/").map(String.init)[...], at: directory, path)
  }

  private static func create(_ parts: ArraySlice<String>, at parent: Int32, _ path: String) throws(Failure)
    -> OutputFile
  {
    guard let first = parts.first, parts.count > 1 else {
      return try OutputFile(at: parent, parts.first ?? path, as: path)
    }
    let isThere = SystemCall.succeeds { unsafe mkdirat(parent, first, 0o777) } || errno == EEXIST
    guard isThere, let folder = Descriptor(at: parent, first, O_RDONLY | O_DIRECTORY | O_NOFOLLOW) else {
      throw .output("cannot create the folder '\(first)'", file: path)
    }
    return try create(parts.dropFirst(), at: folder.number, path)
  }
}

/// A directory and the folders in it.
enum DirectoryTree {
  /// The depth down to which folders are visited: this tool writes none that are deeper.
  private static let depthLimit = InputDirectory.depthLimit

  /// Does something to each folder, those inside it first.
  private static func forEachFolder(
    of directory: Int32, path: String, depth: Int = 0, _ body: (_ name: String, _ folder: Int32) throws(Failure) -> Void
  ) throws(Failure) {
    for entry in try InputDirectory(at: directory, ".", path: path).entries() where entry.kind == .directory {
      guard depth < depthLimit else {
        throw Failure(.cannotCreate, "holds '\(entry.name)', deeper than \(depthLimit) folders", file: path)
      }
      guard let folder = Descriptor(at: directory, entry.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW) else {
        throw .output("cannot open '\(entry.name)'", file: path)
      }
      try forEachFolder(of: folder.number, path: path, depth: depth + 1, body)
      try body(entry.name, folder.number)
    }
  }

  /// Calls `sync` with every folder.
  static func sync(_ directory: Int32, path: String, _ sync: (Int32) -> Bool) throws(Failure) {
    try forEachFolder(of: directory, path: path) { name, folder throws(Failure) in
      guard sync(folder) else {
        throw Failure(.io, "cannot make the folder '\(name)' durable (fsync): \(errorText())", file: path)
      }
    }
  }

  /// Removes everything in a directory. Links go, what they lead to does not.
  static func removeContents(_ directory: Int32, path: String, depth: Int = 0) throws(Failure) {
    for entry in try InputDirectory(at: directory, ".", path: path).entries() {
      if entry.kind == .directory, depth < depthLimit,
        let folder = Descriptor(at: directory, entry.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
      {
        try removeContents(folder.number, path: path, depth: depth + 1)
      }
      let flags = entry.kind == .directory ? AT_REMOVEDIR : 0
      func isRemoved() -> Bool { SystemCall.succeeds { unsafe unlinkat(directory, entry.name, flags) } }
      if isRemoved() { continue }
      let number = errno
      // Its owner may have made the directory read-only, and may undo that.
      if number == EACCES, SystemCall.succeeds({ fchmod(directory, 0o700) }), isRemoved() { continue }
      throw .output("cannot remove the leftover '\(entry.name)'", file: path, errno: number)
    }
  }

  /// The path of one of the files or folders, when it lies in a directory or a link in it leads there.
  static func first(
    of wanted: [FileIdentity], in directory: Int32, path: String, depth: Int = 0
  ) throws(Failure) -> String? {
    for entry in try InputDirectory(at: directory, ".", path: path).entries() {
      var status = stat()
      guard SystemCall.succeeds({ unsafe fstatat(directory, entry.name, &status, 0) }) else { continue }
      let identity = FileIdentity(status)
      if wanted.contains(where: { $0.isSameFile(as: identity) }) { return entry.name }
      guard entry.kind == .directory, depth < depthLimit,
        let folder = Descriptor(at: directory, entry.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
      else { continue }
      if let inner = try first(of: wanted, in: folder.number, path: path, depth: depth + 1) {
        return "\(entry.name)/\(inner)"
      }
    }
    return nil
  }

  /// The first thing that keeps a directory from being replaced: whatever is no file, but for folders of which each
  /// file is in the directory's list of checksums, as they are in what this tool wrote.
  static func obstacle(in directory: InputDirectory, _ entries: [(name: String, kind: InputDirectory.Kind)]) -> String?
  {
    let isPlain = !entries.contains { $0.kind == .directory || $0.kind == .other }
    if isPlain { return nil }
    let listed = ChecksumList.files(of: directory)
    for (name, kind) in entries where kind == .directory || kind == .other {
      let prefix = Array("\(name)/".utf8)
      guard kind == .directory, listed.contains(where: { $0.starts(with: prefix) }),
        let folder = try? directory.folder(name)
      else { return "holds '\(name)', which is not a file" }
      if let other = unlisted(in: folder, prefix, listed, depth: 1) {
        return "holds '\(other)', which its \(ChecksumList.name) does not list"
      }
    }
    return nil
  }

  private static func unlisted(
    in folder: InputDirectory, _ prefix: [UInt8], _ listed: Set<[UInt8]>, depth: Int
  ) -> String? {
    let place = String(decoding: prefix, as: UTF8.self)
    guard let entries = try? folder.entries() else { return place }
    for (name, kind) in entries {
      let path = prefix + Array(name.utf8)
      if kind == .directory, depth < depthLimit, let inner = try? folder.folder(name) {
        if let other = unlisted(in: inner, path + [UInt8(ascii: "/")], listed, depth: depth + 1) { return other }
      } else if kind != .file || !listed.contains(path) {
        return place + name
      }
    }
    return nil
  }
}
