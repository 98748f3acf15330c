/// One weight of a family, or one for each layer or expert: its name on both sides, its shape, what happens to it.
package struct TensorRule: Sendable {
  package enum Presence: Sendable {
    case required
    /// In every layer or in none.
    case optional
    /// Required where the configuration does not tie it to the token embedding.
    case unlessTied
    /// A second spelling of a tensor that another rule reads; never written.
    case alternative
  }

  enum Transform: Sendable {
    case none
    case permuteQueries
    case permuteKeys
    case transpose
    /// Gemma's norms multiply by 1 + weight; GGUF holds the sum.
    case addOne
    /// One half of the rows of each expert: the first is the gate's, the second the up projection's.
    case half(Int)
  }

  /// The name in transformers, with `{layer}` and `{expert}` for numbers.
  let huggingFace: String
  let gguf: String
  /// The shape as Hugging Face stores it, row-major.
  let shape: [Dimension]
  let presence: Presence
  let transform: Transform
  /// Float32 in GGUF although it has two dimensions and is no norm.
  let isAlwaysF32: Bool

  init(
    _ huggingFace: String, _ gguf: String, _ shape: [Dimension], _ presence: Presence = .required,
    _ transform: Transform = .none, isAlwaysF32: Bool = false
  ) {
    self.huggingFace = huggingFace
    self.gguf = gguf
    self.shape = shape
    self.presence = presence
    self.transform = transform
    self.isAlwaysF32 = isAlwaysF32
  }

  var isPerLayer: Bool { huggingFace.utf8.contains(UInt8(ascii: "{")) }
  var isPerExpert: Bool { NumberedName.count(of: huggingFace) == 2 }
}

extension [TensorRule] {
  /// A linear layer: its weight, and a bias where `bias` says how present it is.
  static func linear(
    _ huggingFace: String, _ gguf: String, _ shape: [Dimension], _ transform: TensorRule.Transform = .none,
    bias: TensorRule.Presence? = nil
  ) -> [TensorRule] {
    let weight = TensorRule(huggingFace + ".weight", gguf + ".weight", shape, .required, transform)
    guard let bias else { return [weight] }
    // Conv1D has its outputs last, and its bias needs no transposing.
    let isTransposed = if case .transpose = transform { true } else { false }
    let width = isTransposed ? shape.suffix(1) : shape.prefix(1)
    return [
      weight,
      TensorRule(huggingFace + ".bias", gguf + ".bias", [Dimension](width), bias, isTransposed ? .none : transform),
    ]
  }

  static func norm(
    _ huggingFace: String, _ gguf: String, _ width: Dimension = .hidden, _ transform: TensorRule.Transform = .none
  ) -> [TensorRule] {
    [TensorRule(huggingFace + ".weight", gguf + ".weight", [width], .required, transform)]
  }

  /// With a bias, as GPT-2 has it.
  static func layerNorm(_ huggingFace: String, _ gguf: String) -> [TensorRule] {
    norm(huggingFace, gguf) + [TensorRule(huggingFace + ".bias", gguf + ".bias", [.hidden])]
  }
}

/// A length that a configuration gives.
package enum Dimension: Sendable {
  case one
  case vocabulary
  case hidden
  case feedForward
  case twiceFeedForward
  /// Heads × head length.
  case queries
  /// Key-value heads × head length.
  case keys
  /// Queries, keys and values in one matrix.
  case queriesKeysValues
  case headLength
  case positions
  case experts
  case expertFeedForward
  case twiceExpertFeedForward
  case sharedFeedForward
}
