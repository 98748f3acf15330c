/// The scale of Q4_0 and Q5_0, which has the sign that puts the largest magnitude on the level `-levels`: there
/// is one more of these than of positive ones.
struct SignedScale {
  var d: Float
  var inverse: Float
  private var levels: Float

  init(_ values: UnsafeBufferPointer<Float>, levels: Float) {
    var largest: Float = 0
    // Of two equal magnitudes the first decides.
    for i in values.indices {
      let value = unsafe values[i]
      if value.magnitude > largest.magnitude { largest = value }
    }
    self.levels = levels
    d = largest / -levels
    inverse = d == 0 ? 0 : 1 / d
  }

  /// Rounds half up. A scale so small that its reciprocal is infinite is stored as zero, and all codes with it.
  func code(_ value: Float) -> UInt8 {
    let scaled = value * inverse + (levels + 0.5)
    return scaled.isFinite ? UInt8(min(scaled, 2 * levels - 1)) : 0
  }
}

/// The scale and the offset of Q4_1 and Q5_1: the range of the values is cut into `largestCode` steps.
struct OffsetScale {
  var d: Float
  var m: Float
  private var inverse: Float
  private var largestCode: Float

  init(_ values: UnsafeBufferPointer<Float>, largestCode: Float) {
    var low = Float.greatestFiniteMagnitude
    var high = -low
    // Of two zeros the first decides.
    for i in values.indices {
      let value = unsafe values[i]
      if value < low { low = value }
      if value > high { high = value }
    }
    self.largestCode = largestCode
    m = low
    d = (high - low) / largestCode
    inverse = d == 0 ? 0 : 1 / d
  }

  /// Rounds half up; see `SignedScale.code`.
  func code(_ value: Float) -> UInt8 {
    let scaled = (value - m) * inverse + 0.5
    return scaled.isFinite ? UInt8(min(scaled, largestCode)) : 0
  }
}
