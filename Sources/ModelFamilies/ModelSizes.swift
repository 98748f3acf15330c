package import Bytes

/// The lengths that a model's tensors have, checked once: each at least 1, products without overflow.
package struct ModelSizes {
  /// Far above any model; every expert is planned one by one.
  static let expertLimit = 4096

  package let layers: Int
  package let heads: Int
  package let keyValueHeads: Int
  package let headLength: Int
  package let experts: Int?
  private let lengths: [Dimension: Int]

  /// - Throws: `malformed` for a size that is missing, no whole number, below 1, or too large for GGUF's 32 bits, and
  ///   for heads that the key-value heads do not divide.
  package init(_ parameters: ModelParameters, _ family: Family) throws(Failure) {
    try self.init(parameters, feedForwardFactor: family.feedForwardFactor)
  }

  /// - Parameters:
  ///   - feedForwardFactor: the MLP's width in hidden sizes, where the configuration may leave it out.
  ///   - vocabularyLimit: the largest vocabulary.
  package init(
    _ parameters: ModelParameters, feedForwardFactor: Int?, vocabularyLimit: Int = Int(Int32.max)
  ) throws(Failure) {
    let hidden = try parameters.size("hidden_size")
    layers = try parameters.size("num_hidden_layers")
    heads = try parameters.size("num_attention_heads")
    keyValueHeads = try parameters.optionalSize("num_key_value_heads") ?? heads
    guard heads % keyValueHeads == 0 else {
      throw parameters.failure(
        "num_key_value_heads", "\(keyValueHeads) does not divide num_attention_heads \(heads)")
    }
    if let stated = try parameters.optionalSize("head_dim") {
      headLength = stated
    } else {
      guard hidden % heads == 0 else {
        throw parameters.failure("num_attention_heads", "\(heads) does not divide hidden_size \(hidden)")
      }
      headLength = hidden / heads
    }
    experts = try parameters.optionalSize("num_local_experts", limit: Self.expertLimit)
    let feedForward = try parameters.optionalSize("intermediate_size") ?? feedForwardFactor.map { $0 * hidden }
    let expertFeedForward = try parameters.optionalSize("moe_intermediate_size") ?? feedForward
    // At most 2^62 before the check; below 2^31 after it, so that no sum below overflows.
    let queries = heads * headLength
    guard queries <= Int32.max else {
      throw parameters.failure("num_attention_heads", "\(heads) heads of \(headLength) are more than \(Int32.max)")
    }
    let keys = keyValueHeads * headLength
    var lengths: [Dimension: Int] = [
      .one: 1, .vocabulary: try parameters.size("vocab_size", limit: vocabularyLimit), .hidden: hidden,
      .queries: queries, .keys: keys,
      .headLength: headLength,
    ]
    lengths[.queriesKeysValues] = queries + 2 * keys
    lengths[.feedForward] = feedForward
    lengths[.twiceFeedForward] = feedForward.map { 2 * $0 }
    lengths[.positions] = try parameters.optionalSize("max_position_embeddings")
    lengths[.experts] = experts
    lengths[.expertFeedForward] = expertFeedForward
    lengths[.twiceExpertFeedForward] = expertFeedForward.map { 2 * $0 }
    lengths[.sharedFeedForward] = try parameters.optionalSize("shared_expert_intermediate_size")
    self.lengths = lengths
  }

  package func shape(_ dimensions: [Dimension]) throws(Failure) -> [Int] {
    var shape: [Int] = []
    for dimension in dimensions {
      guard let length = lengths[dimension] else {
        throw Failure(.malformed, "the sizes do not give the \(dimension) length", file: ModelParameters.file)
      }
      shape.append(length)
    }
    return shape
  }
}
