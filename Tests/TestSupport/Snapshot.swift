import Foundation

/// Everything below a directory: names, kinds, link targets, and the bytes of regular files.
public struct Snapshot: Equatable, Sendable, CustomStringConvertible {
  /// By path relative to the directory.
  public private(set) var entries: [String: String] = [:]

  public init(_ path: String) throws {
    let manager = FileManager.default
    for name in try manager.subpathsOfDirectory(atPath: path) {
      let full = path + "/" + name
      let attributes = try manager.attributesOfItem(atPath: full)
      let type = attributes[.type] as? FileAttributeType
      switch type {
      case .typeRegular:
        let size = attributes[.size] as? Int ?? -1
        entries[name] = "file of \(size) bytes, \(Self.digest(full))"
      case .typeSymbolicLink: entries[name] = "link to \(try manager.destinationOfSymbolicLink(atPath: full))"
      default: entries[name] = type?.rawValue ?? "?"
      }
    }
  }

  /// Of a directory that Nibble wrote, without the files of digests, and with the manifest but for what it says of
  /// where the model comes from.
  public init(ofOutput path: String) throws {
    try self.init(path)
    entries["checksums.xxh128"] = nil
    let name = "nibble-manifest.json"
    let lines = try String(contentsOfFile: path + "/" + name, encoding: .utf8).split(separator: "\n").map { line in
      // The last option ends without a comma.
      line.hasSuffix(",") ? line.dropLast() : line
    }
    let origin = ["    \"source\": \"", "    \"lineage\": ["]
    entries[name] = lines.filter { line in !origin.contains(where: line.hasPrefix) }.joined(separator: "\n")
  }

  /// FNV-1a of the whole file, or of both ends of one too large to read in a test.
  private static func digest(_ path: String) -> String {
    guard let file = FileHandle(forReadingAtPath: path) else { return "unreadable" }
    defer { try? file.close() }
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    func add(_ data: Data) {
      for byte in data { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    }
    let limit = 1 << 18
    add((try? file.read(upToCount: limit)) ?? Data())
    if let end = try? file.seekToEnd(), end > UInt64(limit) {
      try? file.seek(toOffset: max(UInt64(limit), end - UInt64(limit)))
      add((try? file.read(upToCount: limit)) ?? Data())
    }
    return String(hash, radix: 16)
  }

  public var description: String {
    entries.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }.joined(separator: "\n")
  }
}
