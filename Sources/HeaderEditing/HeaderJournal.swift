package import Bytes

/// `FILE.nibble-header`: both headers of a file while the one is written over the other.
///
/// It is durable before the first byte of the file changes and removed when the last one has; a power failure in
/// between leaves it, and the next edit finds in it what the file should begin with.
package struct HeaderJournal {
  package static let suffix = ".nibble-header"
  private static let magic = Array("nibble header 1\n".utf8)

  package var fileSize: Int
  /// The digest of the whole file with the new header; nil where no manifest keeps it.
  var newDigest: XXH128Digest?
  package var old: [UInt8]
  /// The new header, as long as `old`.
  package var new: [UInt8]

  package static func path(for file: String) -> String { file + suffix }

  // MARK: - Writing

  /// - Parameter staged: whose lock keeps another edit of the file out.
  package func write(for file: String, through staged: borrowing StagedFiles) throws(Failure) {
    let name = FileName.last(of: Self.path(for: file))
    let output = try staged.files.create(name)
    try output.append(encoded)
    try output.finish()
    try staged.publish(name)
  }

  package var encoded: [UInt8] {
    var bytes = Self.magic
    let digest = newDigest ?? XXH128Digest(high: 0, low: 0)
    for value in [UInt64(fileSize), UInt64(old.count), newDigest == nil ? 0 : 1, digest.high, digest.low] {
      bytes += Self.littleEndian(value)
    }
    bytes += old
    bytes += new
    let check = Self.digest(of: bytes)
    return bytes + Self.littleEndian(check.high) + Self.littleEndian(check.low)
  }

  package static func remove(for file: String) throws(Failure) { try FileName.remove(path(for: file)) }

  private static func littleEndian(_ value: UInt64) -> [UInt8] {
    (0..<8).map { UInt8(truncatingIfNeeded: value >> (8 * UInt64($0))) }
  }

  private static func digest(of bytes: [UInt8]) -> XXH128Digest {
    var hasher = XXH3Hasher()
    hasher.update(bytes.span.rawBytes)
    return hasher.digest128
  }

  // MARK: - Reading

  package static func isThere(for file: String) -> Bool { FileIdentity(path: path(for: file)) != nil }

  /// - Throws: `malformed` when it is not whole: then nothing has been changed yet, or somebody else wrote it.
  package init(for file: String) throws(Failure) {
    let input = try InputFile(path: Self.path(for: file))
    let bytes = try input.contents(limit: 1 << 30)
    func damaged() -> Failure {
      Failure(.malformed, "is not what an interrupted edit leaves; remove it if the model is good", file: input.name)
    }
    let start = Self.magic.count + 40
    guard bytes.count >= start + 16, bytes.starts(with: Self.magic) else { throw damaged() }
    func number(at offset: Int) -> UInt64 {
      bytes[offset..<offset + 8].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    }
    let base = Self.magic.count
    let end = bytes.count - 16
    let check = XXH128Digest(high: number(at: end), low: number(at: end + 8))
    guard check == Self.digest(of: Array(bytes[..<end])), let size = Int(exactly: number(at: base)),
      let count = Int(exactly: number(at: base + 8)), count <= end, end - start == 2 * count
    else { throw damaged() }
    fileSize = size
    newDigest =
      number(at: base + 16) == 0 ? nil : XXH128Digest(high: number(at: base + 24), low: number(at: base + 32))
    old = Array(bytes[start..<start + count])
    new = Array(bytes[start + count..<end])
  }

  package init(fileSize: Int, newDigest: XXH128Digest?, old: [UInt8], new: [UInt8]) {
    self.fileSize = fileSize
    self.newDigest = newDigest
    self.old = old
    self.new = new
  }

  /// The header that the file should begin with: the new one when it was written to its end, or when the manifest
  /// already has its digest; else the old one.
  ///
  /// - Parameter listed: the file's digest by its manifest.
  /// - Throws: `malformed` when somebody else has changed the file since.
  func outcome(for file: InputFile, listed: XXH128Digest?) throws(Failure) -> (header: [UInt8], isNew: Bool) {
    func changed() -> Failure {
      Failure(
        .malformed,
        "was changed by something else after an edit of it had been interrupted; remove "
          + "'\(file.name + Self.suffix)' if the file is good", file: file.name)
    }
    guard file.size == fileSize, old.count <= fileSize else { throw changed() }
    let now = try file.bytes(in: 0..<old.count)
    guard zip(now, zip(old, new)).allSatisfy({ $0 == $1.0 || $0 == $1.1 }) else { throw changed() }
    let isNew = newDigest == nil ? now == new : newDigest == listed
    return (isNew ? new : old, isNew)
  }
}
