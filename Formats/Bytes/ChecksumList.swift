/// `checksums.xxh128`: the digests of a directory's files as `xxhsum -c` reads them, one `DIGEST  FILE` a line.
public enum ChecksumList {
  public static let name = "checksums.xxh128"
  private static let sizeLimit = 1 << 26

  /// The files that the list of a directory names; none where there is no list that can be read.
  static func files(of directory: InputDirectory) -> Set<[UInt8]> {
    guard directory.contains(name), let bytes = try? directory.open(name).contents(limit: sizeLimit) else { return [] }
    var files: Set<[UInt8]> = []
    for line in bytes.split(separator: UInt8(ascii: "\n")) where line.count > 34 {
      files.insert(Array(line.dropFirst(34)))
    }
    return files
  }
}
