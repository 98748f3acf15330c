import CSystem

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// A directory that is written under a hidden name beside its final one and appears there whole, in one
/// step, or not at all.
///
/// The hidden name is fixed (`.NAME.nibble-partial`) and locked, so that a second run is refused while
/// the first is alive and the leavings of a killed run are found and removed by the next.
public struct StagedDirectory: ~Copyable {
  /// The final path.
  public let path: String
  private let name: String
  private let stagingName: String
  private let parent: Descriptor
  private let staging: Descriptor
  private let replaces: Bool
  private var isCommitted = false

  /// - Parameters:
  ///   - path: the directory to create. Its parent must exist. An empty directory is taken over.
  ///   - replacing: whether a checkpoint that is already there may be replaced.
  ///   - inputs: directories and files being read; none of them may be the output or contain it.
  /// - Throws: `cannotCreate` when the output exists or its place is not writable; `locked` when another
  ///   run is writing it.
  public init(path: String, replacing: Bool, inputs: [FileIdentity] = []) throws(Failure) {
    let (parentPath, name) = try Self.split(path)
    guard let parent = Descriptor(parentPath, O_RDONLY | O_DIRECTORY) else {
      throw Failure(.cannotCreate, "cannot open the parent directory '\(parentPath)': \(errorText())", file: path)
    }
    try Self.checkIsOutside(inputs, parent: parent.number, path: path)
    let stagingName = ".\(name).nibble-partial"
    let staging = try Self.claim(parent.number, stagingName, path: path)
    let replaces = try Self.prepare(
      staging.number, stagingName, parent.number, name, path: path, replacing: replacing, inputs: inputs)
    self.path = path
    self.name = name
    self.stagingName = stagingName
    self.replaces = replaces
    self.parent = parent
    self.staging = staging
  }

  deinit {
    if !isCommitted {
      try? DirectoryTree.removeContents(staging.number, path: path)
      _ = unsafe unlinkat(parent.number, stagingName, AT_REMOVEDIR)
    }
  }

  /// Makes new files of the directory; not to be used after `commit` or when the directory is gone.
  public var files: Files { Files(directory: staging.number) }

  /// Something that many may hold while one owns the directory.
  public struct Files: Sendable {
    let directory: Int32

    public func create(_ name: String) throws(Failure) -> OutputFile {
      try OutputFile(at: directory, name)
    }

    /// Bytes that an ordinary user may still write on the file system that holds the directory.
    public func freeBytes() -> Int? {
      var status = statvfs()
      guard SystemCall.succeeds({ unsafe fstatvfs(directory, &status) }) else { return nil }
      let (bytes, overflow) = UInt64(status.f_bavail).multipliedReportingOverflow(by: UInt64(status.f_frsize))
      return overflow ? Int.max : Int(clamping: bytes)
    }
  }

  /// Makes the directory visible under its final name. Every file must have been finished.
  ///
  /// - Returns: what is to be said of the directory that was replaced and could not be removed; nil as a rule.
  @discardableResult
  public consuming func commit() throws(Failure) -> Warning? {
    try DirectoryTree.sync(staging.number, path: path) { nibble_full_sync($0) == 0 }
    guard nibble_full_sync(staging.number) == 0 else {
      throw Failure(.io, "cannot make the directory durable (fsync): \(errorText())", file: path)
    }
    var leftover: Warning?
    if replaces {
      leftover = try replace()
    } else {
      guard SystemCall.succeeds({ unsafe renameat(parent.number, stagingName, parent.number, name) }) else {
        throw .output("cannot move the finished directory into place", file: path)
      }
      isCommitted = true
      removeSetAside()
    }
    guard nibble_full_sync(parent.number) == 0 else {
      throw Failure(.io, "cannot make the new name durable (fsync): \(errorText())", file: path)
    }
    return leftover
  }

  /// Puts the new directory in the place of the old one, then removes the old one.
  ///
  /// - Returns: where the old one is and why, when it could not be removed.
  private mutating func replace() throws(Failure) -> Warning? {
    guard let old = Descriptor(at: parent.number, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW) else {
      throw .output("cannot open the old directory", file: path)
    }
    // Locked, or the next run would take it, which then has the hidden name, for the leavings of a killed one.
    _ = SystemCall.succeeds { flock(old.number, LOCK_EX) }
    try exchange()
    // From here on the new directory has its name: whatever fails now must not take it away.
    isCommitted = true
    do throws(Failure) {
      try DirectoryTree.removeContents(old.number, path: path)
      guard SystemCall.succeeds({ unsafe unlinkat(parent.number, stagingName, AT_REMOVEDIR) }) else {
        throw .output("cannot remove the old directory", file: path)
      }
    } catch {
      // Under the hidden name it would stop every later run.
      let place = setAside() ?? stagingName
      return "\(error); what is left of the old output is in '\(place)'"
    }
    removeSetAside()
    return nil
  }

  /// Names for an old directory that cannot be removed.
  private var namesAside: [String] { (1...8).map { ".\(name).nibble-old" + ($0 == 1 ? "" : "-\($0)") } }

  private func move(_ from: String, _ to: String) -> Bool {
    SystemCall.succeeds { unsafe renameat(parent.number, from, parent.number, to) }
  }

  /// Gives the old directory, which has the hidden name, another one.
  private func setAside() -> String? { namesAside.first { move(stagingName, $0) } }

  /// Removes the old directories that earlier runs could not remove.
  private func removeSetAside() {
    for name in namesAside {
      guard let old = Descriptor(at: parent.number, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW),
        SystemCall.succeeds({ flock(old.number, LOCK_EX | LOCK_NB) })
      else { continue }
      guard (try? DirectoryTree.removeContents(old.number, path: path)) != nil else { continue }
      _ = unsafe unlinkat(parent.number, name, AT_REMOVEDIR)
    }
  }

  /// Swaps the old directory with the new one.
  private func exchange() throws(Failure) {
    if unsafe nibble_rename_exchange(parent.number, stagingName, name) == 0 { return }
    // No atomic exchange on this file system: renames, with the old contents kept until the last.
    guard let oldName = namesAside.first(where: { move(name, $0) }) else {
      throw .output("cannot move the old directory away", file: path)
    }
    guard move(stagingName, name) else {
      let failure = Failure.output("cannot move the finished directory into place", file: path)
      _ = move(oldName, name)
      throw failure
    }
    _ = move(oldName, stagingName)
  }

  // MARK: - Before anything is written

  /// Examines the destination and empties the hidden directory, which this run has locked: until then
  /// another one may have been putting its own result there.
  ///
  /// - Returns: whether there is a directory to be replaced.
  private static func prepare(
    _ staging: Int32, _ stagingName: String, _ parent: Int32, _ name: String, path: String, replacing: Bool,
    inputs: [FileIdentity]
  ) throws(Failure) -> Bool {
    do throws(Failure) {
      let replaces = try checkDestination(parent, name, path: path, replacing: replacing, inputs: inputs)
      // Whatever a killed run left behind is of no use: nothing says how far it came.
      try DirectoryTree.removeContents(staging, path: path)
      return replaces
    } catch {
      _ = unsafe unlinkat(parent, stagingName, AT_REMOVEDIR)
      throw error
    }
  }

  static func split(_ path: String) throws(Failure) -> (parent: String, name: String) {
    var parts = path.split(separator: "/", omittingEmptySubsequences: true)
    while parts.last == "." { parts.removeLast() }
    guard let last = parts.popLast(), last != "..", InputDirectory.isPlainComponent(String(last)) else {
      throw Failure(.cannotCreate, "is not a usable name for the output", file: path)
    }
    let parent = (path.hasPrefix("/") ? "/" : "") + parts.joined(separator: "/")
    return (parent.isEmpty ? "." : parent, String(last))
  }

  private static func checkIsOutside(_ inputs: [FileIdentity], parent: Int32, path: String) throws(Failure) {
    // Walk up to the root: no ancestor of the output may be an input directory.
    var current = Descriptor(at: parent, ".", O_RDONLY | O_DIRECTORY)
    while let here = current, let status = here.status {
      let identity = FileIdentity(status)
      if inputs.contains(where: { $0.isSameFile(as: identity) }) {
        throw Failure(.cannotCreate, "lies inside the input directory", file: path)
      }
      current = Descriptor(at: here.number, "..", O_RDONLY | O_DIRECTORY)
      if let above = current?.status, FileIdentity(above).isSameFile(as: identity) { break }
    }
  }

  /// Whether there is a directory to be replaced at `name`.
  private static func checkDestination(
    _ parent: Int32, _ name: String, path: String, replacing: Bool, inputs: [FileIdentity]
  ) throws(Failure) -> Bool {
    var status = stat()
    guard SystemCall.succeeds({ unsafe fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) }) else { return false }
    guard status.kind == S_IFDIR else {
      throw Failure(.cannotCreate, "already exists and is \(status.kindName)", file: path)
    }
    let identity = FileIdentity(status)
    if inputs.contains(where: { $0.isSameFile(as: identity) }) {
      throw Failure(.cannotCreate, "is the input itself", file: path)
    }
    guard let directory = Descriptor(at: parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW) else {
      throw .output("cannot open", file: path)
    }
    let old = try InputDirectory(at: directory.number, ".", path: path)
    let existing = try old.entries()
    if existing.isEmpty { return false }
    guard replacing else {
      throw Failure(.cannotCreate, "already exists (use --force to replace it)", file: path)
    }
    // --force must not be able to empty somebody's home directory.
    if let obstacle = DirectoryTree.obstacle(in: old, existing) {
      throw Failure(.cannotCreate, "\(obstacle); remove the directory yourself", file: path)
    }
    guard existing.contains(where: { $0.name == "config.json" || $0.name.hasSuffix(".safetensors") }) else {
      throw Failure(.cannotCreate, "is not a checkpoint; remove the directory yourself", file: path)
    }
    if let input = try DirectoryTree.first(of: inputs, in: directory.number, path: path) {
      throw Failure(.cannotCreate, "holds the input '\(input)'", file: path)
    }
    return true
  }

  /// Creates and locks the hidden directory, or takes over what a killed run left.
  static func claim(_ parent: Int32, _ name: String, path: String) throws(Failure) -> Descriptor {
    let isNew = SystemCall.succeeds { unsafe mkdirat(parent, name, 0o777) }
    if !isNew, errno != EEXIST { throw .output("cannot create", file: path) }
    guard let descriptor = Descriptor(at: parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW) else {
      // There a moment ago, and gone: the other run has finished.
      if errno == ENOENT { throw Failure(.locked, "another run was writing it", file: path) }
      throw .output("cannot open '\(name)'", file: path)
    }
    guard SystemCall.succeeds({ flock(descriptor.number, LOCK_EX | LOCK_NB) }) else {
      // Some network file systems have no locks; then only a directory of our own making is safe.
      if errno != EWOULDBLOCK, isNew { return descriptor }
      throw Failure(.locked, "another run is writing it ('\(name)' is locked)", file: path)
    }
    // The other run may have finished between the opening and the lock.
    var status = stat()
    let isStillThere = SystemCall.succeeds { unsafe fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) }
    guard isStillThere, let own = descriptor.status, FileIdentity(own).isSameFile(as: FileIdentity(status)) else {
      throw Failure(.locked, "another run was writing it", file: path)
    }
    return descriptor
  }
}
