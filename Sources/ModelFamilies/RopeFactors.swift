import Bytes
import JSON

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// The divisors of the RoPE frequencies, one for each pair of a head's values.
enum RopeFactors {
  /// Llama 3's scaling: how far the context is stretched, and which waves are stretched with it.
  struct Scaling {
    var factor: Double
    var low: Double
    var high: Double
    /// Tokens of the context before it was stretched.
    var context: Double
  }

  /// - Throws: `malformed` for a parameter that is no number or not above 0, and for a head of odd length.
  static func llama3(_ rope: RopeParameters, headLength: Int) throws(Failure) -> [Float] {
    guard headLength % 2 == 0 else {
      throw Failure(.malformed, "the head length \(headLength) is odd", file: ModelParameters.file)
    }
    func positive(_ key: String, _ fallback: Double) throws(Failure) -> Double {
      let value = try rope.number(key) ?? fallback
      guard value > 0 else {
        throw Failure(
          .malformed, "rope parameters, \(key): found \(value), allowed is above 0", file: ModelParameters.file)
      }
      return value
    }
    let base = try positive("rope_theta", 10_000)
    let scaling = Scaling(
      factor: try positive("factor", 8), low: try positive("low_freq_factor", 1),
      high: try positive("high_freq_factor", 4), context: try positive("original_max_position_embeddings", 8192))
    let factors = llama3(scaling, base: base, headLength: headLength)
    guard factors.allSatisfy({ $0.isFinite && $0 > 0 }) else {
      throw Failure(
        .malformed, "rope parameters: a factor of scaling 'llama3' is not a finite number above 0",
        file: ModelParameters.file)
    }
    return factors
  }

  /// 1 for short waves, `factor` for long ones, in between 1 / ((1 − s) / factor + s), where s falls from 1 to 0 as the
  /// wave's part of the old context falls from `high` to `low`. In float32, as llama.cpp's converter computes it.
  static func llama3(_ scaling: Scaling, base: Double, headLength: Int) -> [Float] {
    let factor = Float(scaling.factor)
    let longest = Float(scaling.context / scaling.low)
    let shortest = Float(scaling.context / scaling.high)
    return (0..<headLength / 2).map { pair in
      let exponent = Float(2 * pair) / Float(headLength)
      let frequency = 1 / Float(pow(Double(Float(base)), Double(exponent)))
      let wave = Float(2 * Double.pi) / frequency
      if wave < shortest { return 1 }
      if wave > longest { return factor }
      let smooth = (Float(scaling.context) / wave - Float(scaling.low)) / Float(scaling.high - scaling.low)
      return 1 / ((1 - smooth) / factor + smooth)
    }
  }

  /// The scaling that gives these factors, found by trying contexts of a power of two with the low and high factors 1
  /// and 4 that published models have. Another scaling with the same factors computes the same.
  ///
  /// - Throws: `unsupported` when none of them does.
  static func llama3Scaling(of factors: [Float], base: Double, headLength: Int) throws(Failure) -> JSONObject {
    guard factors.count == headLength / 2 else {
      throw Failure(
        .malformed, "holds \(factors.count) factors, expected one for each two of the \(headLength) values of a head",
        tensor: "rope_freqs.weight")
    }
    let factor = Double((factors.max() ?? 1).description) ?? 1
    for exponent in 5...24 {
      let scaling = Scaling(factor: factor, low: 1, high: 4, context: Double(1 << exponent))
      let computed = llama3(scaling, base: base, headLength: headLength)
      guard zip(computed, factors).allSatisfy({ abs($0 - $1) <= 1e-5 * abs($1) })
      else { continue }
      var object: JSONObject = ["rope_type": .string("llama3")]
      object["factor"] = JSONNumber(factor).map { .number($0) }
      object["low_freq_factor"] = JSONNumber(1.0).map { .number($0) }
      object["high_freq_factor"] = JSONNumber(4.0).map { .number($0) }
      object["original_max_position_embeddings"] = .number(JSONNumber(1 << exponent))
      return object
    }
    throw Failure(
      .unsupported, "holds factors that no scaling of Llama 3's kind gives", tensor: "rope_freqs.weight")
  }
}
