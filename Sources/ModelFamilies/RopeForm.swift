/// How a family turns its queries and keys.
package enum RopeForm: Sendable {
  /// One set of parameters.
  case standard
  /// The same; Llama 3's scaling is a tensor of factors for each pair of values.
  case frequencyFactors
  /// One set for the layers that see everything, one for those with a window (Gemma 3).
  case byLayerType
  /// Two lists of factors, for short and long contexts (Phi-3).
  case longFactors
  /// Learned positions.
  case none

  /// Whether a model may have tensors of factors.
  var hasFactors: Bool {
    switch self {
    case .frequencyFactors, .longFactors: true
    case .standard, .byLayerType, .none: false
    }
  }
}
