import CSystem

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// A few files of one directory that are written under a hidden name beside their final ones and appear there when
/// all are complete, or not at all.
///
/// The hidden directory (`.NAME.nibble-partial`, of the first file's name) is locked as that of a `StagedDirectory` is.
public struct StagedFiles: ~Copyable {
  /// The path of the first file.
  public let path: String
  private let names: [String]
  private let stagingName: String
  private let parent: Descriptor
  private let staging: Descriptor
  private let replaces: Bool
  /// Files that may be replaced whatever becomes of the others.
  private let orphans: Set<String>

  /// - Parameters:
  ///   - path: a file of the directory that the files go to; a second run with it fails instead of waiting.
  ///   - names: of all files.
  ///   - replacing: whether files of these names may be replaced.
  ///   - orphans: those of `names` that may be in any case: what they belonged to is gone.
  ///   - inputs: files being read; none of them may be replaced.
  /// - Throws: `cannotCreate` when a file exists or its place is not writable; `locked` when another run is writing it.
  public init(
    path: String, names: [String], replacing: Bool, orphans: Set<String> = [], inputs: [FileIdentity] = []
  ) throws(Failure) {
    let (parentPath, name) = try StagedDirectory.split(path)
    guard let parent = Descriptor(parentPath, O_RDONLY | O_DIRECTORY) else {
      throw Failure(.cannotCreate, "cannot open the parent directory '\(parentPath)': \(errorText())", file: path)
    }
    let stagingName = ".\(name).nibble-partial"
    let staging = try StagedDirectory.claim(parent.number, stagingName, path: path)
    do throws(Failure) {
      for name in names {
        try Self.check(name, parent.number, replacing: replacing || orphans.contains(name), inputs: inputs)
      }
      try DirectoryTree.removeContents(staging.number, path: path)
    } catch {
      _ = unsafe unlinkat(parent.number, stagingName, AT_REMOVEDIR)
      throw error
    }
    self.path = path
    self.names = names
    self.stagingName = stagingName
    self.parent = parent
    self.staging = staging
    replaces = replacing
    self.orphans = orphans
  }

  deinit {
    try? DirectoryTree.removeContents(staging.number, path: path)
    _ = unsafe unlinkat(parent.number, stagingName, AT_REMOVEDIR)
  }

  /// Makes the new files; not to be used after `commit` or when the object is gone.
  public var files: StagedDirectory.Files { StagedDirectory.Files(directory: staging.number) }

  /// Makes one finished file visible at once, before the others and whatever becomes of them. It replaces what has its
  /// name.
  public func publish(_ name: String) throws(Failure) {
    guard SystemCall.succeeds({ unsafe renameat(staging.number, name, parent.number, name) }) else {
      throw .output("cannot move the finished file into place", file: name)
    }
    guard nibble_full_sync(parent.number) == 0 else {
      let failure = Failure(.io, "cannot make the new name durable (fsync): \(errorText())", file: name)
      _ = unsafe unlinkat(parent.number, name, 0)
      throw failure
    }
  }

  /// Makes the files visible, the first one last: what comes after it is not missed before it is there. Every file
  /// must have been finished.
  public consuming func commit() throws(Failure) {
    var moved: [String] = []
    for name in names.reversed() {
      do throws(Failure) { try move(name) } catch {
        // What has replaced another stays: that one is gone already.
        if !replaces { for name in moved { _ = unsafe unlinkat(parent.number, name, 0) } }
        throw error
      }
      moved.append(name)
    }
    guard nibble_full_sync(parent.number) == 0 else {
      throw Failure(.io, "cannot make the new name durable (fsync): \(errorText())", file: path)
    }
  }

  private func move(_ name: String) throws(Failure) {
    let isMoved =
      replaces || orphans.contains(name)
      ? SystemCall.succeeds { unsafe renameat(staging.number, name, parent.number, name) }
      // link, unlike rename, refuses a name that is taken; the hidden one is removed with its directory.
      : SystemCall.succeeds { unsafe linkat(staging.number, name, parent.number, name, 0) }
    guard isMoved else { throw .output("cannot move the finished file into place", file: name) }
  }

  private static func check(
    _ name: String, _ parent: Int32, replacing: Bool, inputs: [FileIdentity]
  ) throws(Failure) {
    var status = stat()
    guard SystemCall.succeeds({ unsafe fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) }) else { return }
    guard status.kind == S_IFREG else {
      throw Failure(.cannotCreate, "already exists and is \(status.kindName)", file: name)
    }
    if inputs.contains(where: { $0.isSameFile(as: FileIdentity(status)) }) {
      throw Failure(.cannotCreate, "is the input itself", file: name)
    }
    if !replacing { throw Failure(.cannotCreate, "already exists (use --force to replace it)", file: name) }
  }
}
