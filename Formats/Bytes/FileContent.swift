/// The kind of a file by its first bytes, for messages about one that is not what it should be.
public enum FileContent {
  /// The number of bytes that are enough to tell.
  public static let length = 512

  /// `a PNG image`, `a Git LFS pointer, …`; nil for what is not known, and for text.
  ///
  /// - Parameter beginning: the first `length` bytes, or all when there are fewer.
  public static func signature(_ beginning: [UInt8]) -> String? {
    if beginning.isEmpty { return "an empty file" }
    if let entry = signatures.first(where: { beginning.starts(with: $0.bytes) }) { return entry.name }
    if beginning.count >= 2, beginning[0] == 0x80, (2...5).contains(beginning[1]) {
      return "a Python pickle, which Nibble never executes"
    }
    if beginning.count >= 262, beginning[257..<262].elementsEqual("ustar".utf8) { return "a tar archive" }
    if beginning.count == length, beginning.allSatisfy({ $0 == 0 }) {
      return "zeros: room that was reserved, or a download that was broken off"
    }
    let words = beginning.drop { isSpace($0) }.prefix(16).map { (0x41...0x5A).contains($0) ? $0 | 0x20 : $0 }
    if words.starts(with: "<!doctype html".utf8) || words.starts(with: "<html".utf8) {
      return "a web page (HTML), such as a server sends instead of a file"
    }
    if words.starts(with: "<?xml".utf8) { return "XML, such as a server sends instead of a file" }
    return nil
  }

  /// `text that begins with 'root:x:0'`; nil when there are other than printable characters.
  public static func text(_ beginning: [UInt8]) -> String? {
    // The last character may be cut in two.
    for cut in 0..<4 where cut < beginning.count {
      guard let text = String(validating: beginning.dropLast(cut), as: UTF8.self) else { continue }
      guard text.unicodeScalars.allSatisfy({ $0.isHarmless || ["\t", "\n", "\r"].contains($0) }) else { return nil }
      let line = text.drop { $0.isWhitespace }.prefix { !$0.isNewline }
      return "text that begins with '\(line.prefix(40).printable())\(line.count > 40 ? "…" : "")'"
    }
    return nil
  }

  private static func isSpace(_ byte: UInt8) -> Bool { [0x20, 0x09, 0x0A, 0x0D].contains(byte) }

  private static let signatures: [(bytes: [UInt8], name: String)] =
    [
      ("GGUF", "a GGUF file"), ("GGML", beforeGGUF), ("lmgg", beforeGGUF), ("GGMF", beforeGGUF), ("fmgg", beforeGGUF),
      ("GGJT", beforeGGUF), ("tjgg", beforeGGUF), ("ggml", beforeGGUF), ("ggjt", beforeGGUF),
      ("PK\u{3}\u{4}", "a ZIP archive (a PyTorch checkpoint?)"),
      ("version https://", "a Git LFS pointer, not the file itself; run 'git lfs pull' first"),
      ("%PDF", "a PDF document"), ("\u{7F}ELF", "a program (ELF)"), ("GIF8", "a GIF image"), ("RIFF", "a RIFF file"),
      ("PAR1", "a Parquet file"), ("ARROW1", "an Arrow file"), ("SQLite format 3", "an SQLite database"),
      ("BZh", "a bzip2 archive"),
    ].map { (Array($0.0.utf8), $0.1) } + [
      ([0x89, 0x48, 0x44, 0x46], "an HDF5 file"), ([0x89, 0x50, 0x4E, 0x47], "a PNG image"),
      ([0xFF, 0xD8, 0xFF], "a JPEG image"), ([0x1F, 0x8B], "a gzip archive"),
      ([0x28, 0xB5, 0x2F, 0xFD], "a Zstandard archive"), ([0xFD, 0x37, 0x7A, 0x58, 0x5A], "an xz archive"),
      ([0x37, 0x7A, 0xBC, 0xAF], "a 7-Zip archive"), ([0x93, 0x4E, 0x55, 0x4D, 0x50, 0x59], "a NumPy array"),
    ]

  private static let beforeGGUF = "a model in the format before GGUF (GGML)"
}
