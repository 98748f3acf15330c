import Bytes

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// What the frequency of each pair of a head's values is divided by.
enum RopeFactors {
  /// Llama 3: 1 for short waves, `factor` for long ones, in between 1 / ((1 − s) / factor + s), where s falls from 1
  /// to 0 as the wave's part of the old context falls from `high_freq_factor` to `low_freq_factor`. In float32, as
  /// llama.cpp's converter computes it.
  ///
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
    let factor = Float(try positive("factor", 8))
    let low = try positive("low_freq_factor", 1)
    let high = try positive("high_freq_factor", 4)
    let context = try positive("original_max_position_embeddings", 8192)
    let longest = Float(context / low)
    let shortest = Float(context / high)
    return (0..<headLength / 2).map { pair in
      let exponent = Float(2 * pair) / Float(headLength)
      let frequency = 1 / Float(pow(Double(Float(base)), Double(exponent)))
      let wave = Float(2 * Double.pi) / frequency
      if wave < shortest { return 1 }
      if wave > longest { return factor }
      let smooth = (Float(context) / wave - Float(low)) / Float(high - low)
      return 1 / ((1 - smooth) / factor + smooth)
    }
  }
}
