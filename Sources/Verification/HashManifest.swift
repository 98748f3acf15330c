import Bytes

/// The output of `llama-gguf-hash`: a line `TYPE  DIGEST  FILE` for all tensor data of a GGUF file, and
/// `TYPE  DIGEST  FILE:TENSOR` for that of one tensor. FILE is the path that the tool was given.
struct HashManifest {
  enum Kind: String, CaseIterable {
    case xxh64, sha1, sha256
    /// Version 5, from the SHA-1 of a name space and all tensor data; of whole files only.
    case uuid

    var digestLength: Int {
      switch self {
      case .xxh64: 16
      case .sha1: 40
      case .sha256: 64
      case .uuid: 36
      }
    }
  }

  struct Entry {
    var kind: Kind
    var digest: String
    /// `FILE` or `FILE:TENSOR`: a name may hold colons, so only who knows the file can tell.
    var subject: String
  }

  /// The manifest's name as the user gave it.
  let name: String
  private(set) var entries: [Entry] = []

  static let sizeLimit = 1 << 28

  /// Whether a file begins with a word, as no JSON but a constant does.
  static func isLikely(_ file: InputFile) throws(Failure) -> Bool {
    let beginning = try file.bytes(in: 0..<min(64, file.size))
    let first = beginning.first { ![0x20, 0x09, 0x0A, 0x0D].contains($0) } ?? 0
    return (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(first | 0x20)
  }

  /// - Throws: `malformed` when no line is one of that tool's, or one is cut short.
  init(_ file: InputFile) throws(Failure) {
    name = file.name
    let bytes = try file.contents(limit: Self.sizeLimit)
    var offset = 0
    for line in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
      defer { offset += line.count + 1 }
      guard let text = String(validating: line, as: UTF8.self) else {
        throw Failure(.malformed, "a line is not UTF-8", file: name, offset: offset)
      }
      if let entry = try entry(text, at: offset) { entries.append(entry) }
    }
    guard !entries.isEmpty else {
      throw Failure(
        .malformed, "is neither a manifest of Nibble nor the output of llama-gguf-hash (xxh64, sha1, sha256, uuid)",
        file: name)
    }
  }

  /// nil for a line of something else, as the tool prints some.
  private func entry(_ line: String, at offset: Int) throws(Failure) -> Entry? {
    let words = line.split(maxSplits: 2, whereSeparator: { $0 == " " || $0 == "\t" || $0 == "\r" })
    guard let kind = words.first.flatMap({ Kind(rawValue: String($0)) }) else { return nil }
    func refused() -> Failure {
      Failure(
        .malformed, "a line that begins with \(kind.rawValue) goes on with \(kind.digestLength) digits and a file",
        file: name, offset: offset)
    }
    guard words.count == 3 else { throw refused() }
    let digest = words[1].lowercased()
    let isDigest = digest.utf8.allSatisfy {
      (0x30...0x39).contains($0) || (0x61...0x66).contains($0) || kind == .uuid && $0 == UInt8(ascii: "-")
    }
    // The rest, without what stands around it.
    var subject = words[2].drop { $0 == " " || $0 == "\t" }
    while let last = subject.last, last == " " || last == "\t" || last == "\r" { subject.removeLast() }
    guard digest.utf8.count == kind.digestLength, isDigest, !subject.isEmpty else { throw refused() }
    return Entry(kind: kind, digest: digest, subject: String(subject))
  }
}
