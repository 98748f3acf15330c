import Foundation

/// A model directory that must be rejected, or that must be accepted when `exitCode` is 0.
public struct HostileDirectory: Sendable, CustomStringConvertible {
  public enum Entry: Sendable {
    case file(@Sendable () -> [UInt8])
    /// A symbolic link to this target.
    case link(String)
    case directory
  }

  public let name: String
  public let exitCode: Int32
  /// Part of the one line on stderr, or of a warning; nil when there must be no warning.
  public let message: String?
  /// The tensor that the line must name.
  public let tensor: String?
  /// Paths may contain `/`; the directories in between are made.
  public let entries: [(path: String, entry: Entry)]
  /// The directory to open, among the entries.
  public let root: String

  public var description: String { name }

  public init(
    _ name: String, exitCode: Int32 = 65, _ message: String?, tensor: String? = nil, root: String = "",
    _ entries: [(path: String, entry: Entry)]
  ) {
    self.name = name
    self.exitCode = exitCode
    self.message = message
    self.tensor = tensor
    self.root = root
    self.entries = entries
  }

  /// Makes the entries below `path` and returns the path of the directory to open.
  public func make(in path: String) throws -> String {
    for (relative, entry) in entries {
      let url = URL(fileURLWithPath: path).appendingPathComponent(relative)
      try FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
      switch entry {
      case .file(let bytes): try Data(bytes()).write(to: url)
      case .link(let target): try FileManager.default.createSymbolicLink(atPath: url.path, withDestinationPath: target)
      case .directory: try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
      }
    }
    return root.isEmpty ? path : path + "/" + root
  }

  static let indexName = "model.safetensors.index.json"

  /// A shard of one-row BF16 tensors.
  static func shard(_ tensors: String...) -> Entry {
    .file {
      SafetensorsBuilder(
        tensors.map { .init($0, "BF16", [4], [1, 2, 3, 4, 5, 6, 7, 8]) }, metadata: "{\"format\":\"pt\"}"
      ).bytes
    }
  }

  static func text(_ text: @autoclosure @escaping @Sendable () -> String) -> Entry { .file { Array(text().utf8) } }

  /// An index over shards of such tensors: pairs of tensor and file name as raw JSON.
  static func index(_ map: [(String, String)], totalSize: String? = nil) -> Entry {
    let entries = map.map { "\"\($0)\":\"\($1)\"" }.joined(separator: ",")
    let size = totalSize ?? "\(map.count * 8)"
    return text("{\"metadata\":{\"total_size\":\(size)},\"weight_map\":{\(entries)}}")
  }

  /// Two shards and their index: the twin of most rows.
  static let sharded: [(path: String, entry: Entry)] = [
    (indexName, index([("a", "s1.safetensors"), ("b", "s2.safetensors"), ("c", "s2.safetensors")])),
    ("s1.safetensors", shard("a")), ("s2.safetensors", shard("b", "c")),
  ]

  /// `sharded` with one entry replaced, or removed by nil.
  static func sharded(_ path: String, _ entry: Entry?) -> [(path: String, entry: Entry)] {
    sharded.compactMap { $0.path == path ? entry.map { (path, $0) } : $0 }
  }

  /// Every checkpoint directory with its verdict.
  public static var safetensors: [HostileDirectory] { accepted + paths + links + disagreements + indexes + choices }
}
