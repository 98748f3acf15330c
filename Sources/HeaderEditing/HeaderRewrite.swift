import Bytes
import Checkpoints
import Console
import Tensors
import Writing

/// Gives a file its new header: where it is when the data may stay, else as a new file that takes the old one's place.
struct HeaderRewrite {
  let path: String
  let file: InputFile
  let header: EditedHeader
  let manifest: ManifestEdit?
  let progress: Progress.Style

  static let pieceBytes = 1 << 20

  /// Whether only the header is written. A file of several names gets a new one: the others keep the old contents.
  static func isInPlace(_ header: EditedHeader, linkCount: Int) -> Bool { header.fits && linkCount == 1 }

  /// - Returns: bytes written to the file.
  /// - Throws: what reading or writing throws; the file is as it was then, unless its device failed.
  func run() throws(Failure) -> Int {
    let target = try EditedFile(path: path, name: file.name)
    guard target.identity == file.identity else {
      throw Failure(.io, "was replaced or changed while it was being read", file: file.name)
    }
    if Self.isInPlace(header, linkCount: target.linkCount) {
      try overwrite(target)
      return header.new.count
    }
    return try replace()
  }

  // MARK: - In place

  private func overwrite(_ target: borrowing EditedFile) throws(Failure) {
    // Its hidden directory is also the lock that keeps a second edit out.
    let staged = try StagedFiles(path: path, names: manifest?.names ?? [], replacing: true)
    var digests: FileDigests?
    if let manifest {
      let both = try digest()
      try check(both.old, manifest)
      try manifest.write(both.new, shift: 0, into: staged.files)
      digests = both.new
    }
    try file.checkUnchanged()
    try Interruption.check()
    guard !HeaderJournal.isThere(for: path) else {
      throw Failure(.locked, "another edit of it was interrupted just now; try again", file: file.name)
    }
    try HeaderJournal(fileSize: file.size, newDigest: digests?.xxh128, old: header.old, new: header.new)
      .write(for: path, through: staged)
    do throws(Failure) { try target.replaceBeginning(header.new) } catch {
      // As it was, if the device still takes it.
      do throws(Failure) { try target.replaceBeginning(header.old) } catch { throw unfinished(error) }
      try? HeaderJournal.remove(for: path)
      throw error
    }
    if manifest != nil {
      do throws(Failure) { try staged.commit() } catch {
        do throws(Failure) { _ = try Recovery(path: path, name: file.name).run() } catch { throw unfinished(error) }
        throw error
      }
      try HeaderJournal.remove(for: path)
    } else {
      try HeaderJournal.remove(for: path)
      // The lock is held up to here.
      _ = consume staged
    }
  }

  private func unfinished(_ failure: Failure) -> Failure {
    var failure = failure
    failure.message += "; '\(HeaderJournal.path(for: file.name))' has the header, 'nibble edit' on the file writes it"
    return failure
  }

  /// Digests of the file as it is and with its new header, in one pass.
  private func digest() throws(Failure) -> (old: XXH128Digest, new: FileDigests) {
    var old = XXH3Hasher()
    var new = XXH3Hasher()
    var sha256 = manifest?.entry.sha256 == nil ? nil : SHA256Hasher()
    old.update(header.old.span.rawBytes)
    new.update(header.new.span.rawBytes)
    sha256?.update(header.new.span.rawBytes)
    let progress = Progress("reading", total: file.size, style: progress)
    defer { progress.finish() }
    var buffer = ScratchBuffer(byteCount: Self.pieceBytes)
    var position = header.old.count
    while position < file.size {
      let count = try read(at: position, into: &buffer)
      let piece = buffer.bytes.extracting(first: count)
      old.update(piece)
      new.update(piece)
      sha256?.update(piece)
      progress.advance(by: count)
      position += count
    }
    return (
      old.digest128, FileDigests(name: file.name, size: file.size, xxh128: new.digest128, sha256: sha256?.finish())
    )
  }

  // MARK: - A new file

  private func replace() throws(Failure) -> Int {
    let staged = try StagedFiles(path: path, names: [file.name] + (manifest?.names ?? []), replacing: true)
    let size = file.size - header.old.count + header.new.count
    if let free = staged.files.freeBytes(), free < size.addingSaturated(1 << 16) {
      throw Failure(
        .io, "needs \(byteText(size)) for a new file, but only \(byteText(free)) (\(free) bytes) are free there",
        file: file.name)
    }
    let progress = Progress("copying", total: file.size, style: progress)
    defer { progress.finish() }
    let created = try staged.files.create(file.name)
    created.takePermissions(of: file)
    var output = HashedFile(created, sha256: manifest?.entry.sha256 != nil)
    var old = XXH3Hasher()
    old.update(header.old.span.rawBytes)
    try output.append(header.new)
    var buffer = ScratchBuffer(byteCount: Self.pieceBytes)
    var position = header.old.count
    while position < file.size {
      let count = try read(at: position, into: &buffer)
      let piece = buffer.bytes.extracting(first: count)
      old.update(piece)
      try output.append(piece, copiedFrom: file, at: position)
      progress.advance(by: count)
      position += count
    }
    let digests = try output.finish()
    if let manifest {
      try check(old.digest128, manifest)
      try manifest.write(digests, shift: header.new.count - header.old.count, into: staged.files)
    }
    try file.checkUnchanged()
    try Interruption.check()
    try staged.commit()
    return size
  }

  private func check(_ digest: XXH128Digest, _ manifest: ManifestEdit) throws(Failure) {
    guard digest == manifest.entry.xxh128 else {
      throw Failure(
        .malformed,
        "is not what '\(manifest.name)' says: its digest is \(digest), not \(manifest.entry.xxh128); 'nibble verify' "
          + "tells more", file: file.name)
    }
  }

  // MARK: - The data

  /// - Returns: bytes read, to the front of the buffer.
  private func read(at position: Int, into buffer: inout ScratchBuffer) throws(Failure) -> Int {
    try Interruption.check()
    let count = min(Self.pieceBytes, file.size - position)
    var room = buffer.mutableBytes
    var piece = room.part(0..<count)
    try file.read(at: position, into: &piece)
    return count
  }
}
