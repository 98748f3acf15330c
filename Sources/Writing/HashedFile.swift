package import Bytes

/// The digests of one finished file.
package struct FileDigests: Sendable {
  package var name: String
  package var size: Int
  package var xxh128: XXH128Digest
  package var sha256: String?

  package init(name: String, size: Int, xxh128: XXH128Digest, sha256: String? = nil) {
    self.name = name
    self.size = size
    self.xxh128 = xxh128
    self.sha256 = sha256
  }
}

/// An output file that takes its digests from the bytes as they are written.
package struct HashedFile: ~Copyable {
  private let file: OutputFile
  private var hasher = XXH3Hasher()
  private let hasSHA256: Bool
  private var sha256: SHA256Hasher?

  package init(_ file: OutputFile, sha256: Bool) {
    self.file = file
    hasSHA256 = sha256
    self.sha256 = sha256 ? SHA256Hasher() : nil
  }

  package var size: Int { file.size }

  package mutating func append(_ bytes: RawSpan) throws(Failure) {
    try file.append(bytes)
    hasher.update(bytes)
    sha256?.update(bytes)
  }

  /// The same, copied by the kernel from where the bytes were read.
  package mutating func append(_ bytes: RawSpan, copiedFrom source: InputFile, at offset: Int)
    throws(Failure)
  {
    try file.append(bytes, copiedFrom: source, at: offset)
    hasher.update(bytes)
    sha256?.update(bytes)
  }

  package mutating func append(_ bytes: [UInt8]) throws(Failure) {
    try append(bytes.span.rawBytes)
  }

  package mutating func append(_ text: String) throws(Failure) { try append(Array(text.utf8)) }

  /// Writes over bytes at the file's start. The digests are taken anew, from what is read back.
  package mutating func overwriteStart(_ bytes: [UInt8]) throws(Failure) {
    try file.overwrite(at: 0, bytes.span.rawBytes)
    hasher.reset()
    if hasSHA256 { sha256 = SHA256Hasher() }
    try file.forEachPiece { bytes throws(Failure) in
      hasher.update(bytes)
      sha256?.update(bytes)
    }
  }

  /// Makes the file durable.
  package consuming func finish() throws(Failure) -> FileDigests {
    try file.finish()
    return FileDigests(name: file.name, size: file.size, xxh128: hasher.digest128, sha256: sha256?.finish())
  }
}
