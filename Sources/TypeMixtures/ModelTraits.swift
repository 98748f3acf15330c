import Bytes
import GGUF

/// The traits of a model on which its quantization depends.
struct ModelTraits: Sendable {
  static let layerLimit = 65_536

  let architecture: String
  /// Layers, those for prediction of further tokens included; nil when the metadata do not say.
  let layers: Int?
  let experts: Int
  /// Query heads that share a key-value head in the first layer; 0 when it has no attention.
  let queriesPerKey: Int
  /// A large model whose attention shares values among many heads.
  let is70B: Bool

  /// - Throws: `malformed` for metadata of another type or out of range.
  init(_ metadata: GGUFMetadata) throws(Failure) {
    guard let architecture = try metadata.text("general.architecture") else {
      throw Failure(.malformed, "metadata 'general.architecture' is missing")
    }
    self.architecture = architecture
    func count(_ key: String) throws(Failure) -> Int? {
      guard let value = try metadata.integer("\(architecture).\(key)") else { return nil }
      return try Self.checked(value, "\(architecture).\(key)")
    }
    func ofFirstLayer(_ key: String) throws(Failure) -> Int? {
      let key = "\(architecture).\(key)"
      guard let value = metadata[key], value.array != nil else {
        guard let value = try metadata.integer(key) else { return nil }
        return try Self.checked(value, key)
      }
      guard let first = try metadata.integers(key)?.first else { return nil }
      return try Self.checked(first, key)
    }
    let blocks = try count("block_count")
    let predicting = try count("nextn_predict_layers") ?? 0
    experts = try count("expert_count") ?? 0
    let heads = try ofFirstLayer("attention.head_count") ?? 0
    let sharedHeads = try ofFirstLayer("attention.head_count_kv") ?? heads
    queriesPerKey = sharedHeads == 0 ? 0 : heads / sharedHeads
    switch architecture {
    case "nanbeige":
      // The same layers are run through several times.
      let loops = try count("num_loops") ?? 1
      layers = try blocks.map { value throws(Failure) in try Self.checked(value * loops, "nanbeige.num_loops") }
    case "graniteswitch": layers = blocks.map { $0 - predicting + 1 }
    default: layers = blocks
    }
    let regular = blocks.map { $0 - predicting }
    is70B =
      switch architecture {
      case "llama", "llama-embed": regular == 80 && experts != 8 && heads != sharedHeads
      case "qwen2", "deci", "olmo": regular == 80
      case "jais2": regular == 68
      default: false
      }
  }

  private static func checked(_ value: Int, _ key: String) throws(Failure) -> Int {
    guard (0...layerLimit).contains(value) else {
      throw Failure(.malformed, "metadata '\(key.printable(limit: 256))' is \(value), allowed are 0 to \(layerLimit)")
    }
    return value
  }
}
