import Bytes

/// The role of a tensor in a model, as far as its name tells it and its quantization depends on it.
enum TensorRole: Sendable {
  case output, embedding
  case query, key, value, queryKeyValue, keyValue, attentionOutput
  case up, gate, down
  case other

  static let outputName = "output.weight"
  /// Embeddings that every layer adds of its own.
  static let layerEmbeddingName = "per_layer_token_embd.weight"
  private static let embeddingNames = ["token_embd.weight", layerEmbeddingName]

  /// Parts of a name, in the order in which they are looked for.
  private static let parts: [(text: String, role: TensorRole)] = [
    ("attn_qkv.weight", .queryKeyValue), ("attn_kv_b.weight", .keyValue), ("attn_v.weight", .value),
    ("attn_k.weight", .key), ("attn_q.weight", .query), ("attn_output.weight", .attentionOutput), ("ffn_up", .up),
    ("ffn_gate", .gate), ("ffn_down", .down),
  ]

  init(name: String) {
    if name == Self.outputName {
      self = .output
    } else if Self.embeddingNames.contains(name) {
      self = .embedding
    } else {
      self = Self.parts.first { name.hasBytes($0.text) }?.role ?? .other
    }
  }

  /// Whether values come out of it, which suffer most from quantization.
  var holdsValues: Bool {
    switch self {
    case .value, .queryKeyValue, .keyValue: true
    default: false
    }
  }
}

extension String {
  /// The number of the layer in `blk.N.`, as C's `%d` reads it; nil for a name that does not begin so.
  var blockNumber: Int? {
    guard utf8.starts(with: "blk.".utf8) else { return nil }
    var rest = utf8.dropFirst(4).drop { $0 == 0x20 || (0x09...0x0D).contains($0) }
    let isNegative = rest.first == UInt8(ascii: "-")
    if isNegative || rest.first == UInt8(ascii: "+") { rest = rest.dropFirst() }
    let digits = rest.prefix { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    guard let text = String(digits), !text.isEmpty else { return nil }
    // What is too large is cut off as C cuts it: first to 64 bits, then to 32.
    let value = Int((isNegative ? "-" : "") + text) ?? (isNegative ? .min : .max)
    return Int(Int32(truncatingIfNeeded: value))
  }
}
