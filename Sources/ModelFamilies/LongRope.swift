import Bytes

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

extension RopeParameters {
  static let longFactors = "rope_factors_long.weight"
  static let shortFactors = "rope_factors_short.weight"

  /// How many values of each head turn: `partial_rotary_factor` × hidden size, over the heads.
  func partialDimensions(_ parameters: ModelParameters, _ sizes: ModelSizes) throws(Failure) -> Int {
    let part = try number("partial_rotary_factor") ?? 1
    guard part > 0, part <= 1 else {
      throw parameters.failure("partial_rotary_factor", "found \(part), allowed is above 0 up to 1")
    }
    return Int(part * Double(try parameters.size("hidden_size"))) / sizes.heads
  }

  /// sqrt(1 + ln(s) / ln(c)) for a context of c tokens stretched s-fold, 1 where it is not stretched; nil without
  /// long factors.
  func attentionFactor(_ parameters: ModelParameters) throws(Failure) -> Double? {
    guard let factors = try numbers("long_factor"), !factors.isEmpty else { return nil }
    try requireLongRope()
    let original = Double(try originalContext())
    let scale = Double(try parameters.size("max_position_embeddings")) / original
    return scale > 1 ? sqrt(1 + log(scale) / log(original)) : 1
  }

  /// The long factors, then the short ones: one for each pair of values that turns.
  func longAndShortFactors(
    _ parameters: ModelParameters, _ sizes: ModelSizes
  ) throws(Failure) -> [(name: String, values: [Float])] {
    guard let long = try numbers("long_factor"), !long.isEmpty else { return [] }
    try requireLongRope()
    let short = try required("short_factor", try numbers("short_factor"))
    let dimensions = try partialDimensions(parameters, sizes)
    for (name, list) in [("long_factor", long), ("short_factor", short)] where 2 * list.count != dimensions {
      throw parameters.failure(
        name, "found \(list.count) factors, expected one for each two of the \(dimensions) values of a head that turn")
    }
    return [(Self.longFactors, long.map { Float($0) }), (Self.shortFactors, short.map { Float($0) })]
  }

  private func originalContext() throws(Failure) -> Int {
    let key = "original_max_position_embeddings"
    let length = try required(key, try integer(key))
    guard length > 1 else {
      throw Failure(.malformed, "\(key): found \(length), allowed is above 1", file: ModelParameters.file)
    }
    return length
  }

  /// `su` and `yarn` are older words for it in this family.
  private func requireLongRope() throws(Failure) {
    guard ["longrope", "su", "yarn"].contains(type) else {
      throw Failure(
        .unsupported, "rope scaling '\(type.printable(limit: 64))' with long factors; only 'longrope' has them",
        file: ModelParameters.file)
    }
  }
}
