extension Reference {
  /// See `ScaledFormat.quantize` with a search.
  package static func quantize(
    _ values: UnsafeRawBufferPointer, as type: FloatType, format: ScaledFormat, columns: Int, globalScale: Float,
    search: ScaledSearch, codes: UnsafeMutableRawBufferPointer, scales: UnsafeMutableRawBufferPointer
  ) throws(NonFinite) {
    let size = format.blockColumns ?? columns
    for start in stride(from: 0, to: values.count / type.byteCount, by: size) {
      let range = start..<start + size
      let floats = range.map { unsafe Float(load(values, $0, as: type)) }
      guard floats.allSatisfy(\.isFinite) else { throw unsafe refused(group: range, of: values, as: type) }
      let weights = search.weights.map { all in
        all.repeated[start % columns..<start % columns + size].map { $0 * $0 }
      }
      let group = SearchedGroup(floats, weights, type)
      let block = start / size
      var divisor: Float
      switch format.kind {
      case .int4:
        divisor = group.scaleOfInt4(isSigned: search.allowsNegative)
        unsafe store(Double(divisor), block, of: scales, as: type)
      default:
        let (code, value) = group.codeOfE2M1(format.kind, globalScale)
        unsafe scales[block] = UInt8(code)
        divisor = value
      }
      for (index, value) in zip(range, floats) {
        let quotient = value / divisor
        let code =
          format.kind == .int4
          ? UInt8(min(max(quotient.rounded(.toNearestOrEven), -8), 7) + 8) : nearestE2M1(quotient)
        unsafe put(code, index, of: codes)
      }
    }
  }
}

/// One group, its values multiplied with a power of two so that the largest magnitude is from 1 to below 2.
private struct SearchedGroup {
  let type: FloatType
  let largest: Float
  let values: [Float]
  let weights: [Float]
  let reduced: Float
  let down: Float
  let up: Float

  init(_ floats: [Float], _ weights: [Float]?, _ type: FloatType) {
    self.type = type
    self.weights = weights ?? floats.map { _ in 1 }
    largest = floats.reduce(0) { max($0, $1.magnitude) }
    let exponent = largest < .leastNormalMagnitude ? -126 : Int(largest.exponent)
    up = Float(sign: .plus, exponent: exponent, significand: 1)
    let down = Float(sign: .plus, exponent: -exponent, significand: 1)
    self.down = down
    values = floats.map { $0 * down }
    reduced = largest * down
  }

  private func rounded(_ value: Float) -> Float { Float(Reference.rounded(Double(value), as: type)) }

  /// What a value of the type is at most.
  private var greatest: Float { FourBitFormat.greatestScale(of: type) }

  // MARK: - Whole numbers

  private struct Sums {
    var products: Float = 0
    var squares: Float = 0

    mutating func add(_ value: Float, _ weight: Float, _ level: Float) {
      let weighted = weight * level
      products += weighted * value
      squares += weighted * level
    }

    func best(or otherwise: Float) -> Float { squares == 0 ? otherwise : products / squares }
  }

  private func level(_ value: Float, _ bounds: ClosedRange<Float>) -> Float {
    min(max(value.rounded(.toNearestOrEven), bounds.lowerBound), bounds.upperBound)
  }

  func scaleOfInt4(isSigned: Bool) -> Float {
    let limit = greatest * 0.125
    let plain = rounded(largest / 7.5)
    var scale = min(plain == 0 ? Float(Reference.epsilon(type)) : plain, limit)
    var chosen = scale
    var least: Float = 0
    var next = coarse(isSigned)
    for tried in 0..<4 {
      let own = scale * down
      let inverse = scale == 0 ? 0 : 1 / own
      var error: Float = 0
      var sums = Sums()
      for (value, weight) in zip(values, weights) {
        let level = level(value * inverse, -8...7)
        let difference = value - level * own
        error += weight * difference * difference
        sums.add(value, weight, level)
      }
      if tried == 0 {
        least = error
      } else {
        if scale != 0, error < least { (chosen, least) = (scale, error) }
        next = sums.best(or: own)
      }
      scale = rounded(min(max(next * up, -limit), limit))
    }
    return chosen
  }

  private func coarse(_ isSigned: Bool) -> Float {
    let reciprocal = 1 / max(reduced, 0x1p-30)
    var (best, scale): (Float, Float) = (0, 0)
    for step in 0..<13 {
      let inverse = (7 + 0.4 * Float(step)) * reciprocal
      for sign in isSigned ? [1, -1] as [Float] : [1] {
        var sums = Sums()
        for (value, weight) in zip(values, weights) {
          sums.add(value, weight, level(value * inverse, sign > 0 ? -8...7 : -7...8))
        }
        let own = sums.best(or: 0)
        if own * sums.products > best { (best, scale) = (own * sums.products, own * sign) }
      }
    }
    return scale
  }

  // MARK: - E2M1

  /// The code of the scale, and its value.
  func codeOfE2M1(_ kind: ScaledFormat.Kind, _ globalScale: Float) -> (Int, Float) {
    let isNVFP4 = kind == .nvfp4
    func value(_ code: Int) -> Float {
      isNVFP4
        ? Reference.value(of: code, .e4m3) / globalScale : Float(sign: .plus, exponent: code - 127, significand: 1)
    }
    var plain: Int
    let middle: Int
    let tried: ClosedRange<Int>
    let bounds: ClosedRange<Int>
    if isNVFP4 {
      let scaled = min(rounded(largest / 6) * globalScale, 448)
      let code = Int(Reference.nearestE4M3(Double(scaled)))
      plain = code == 0 ? 0x20 : code
      (middle, tried, bounds) = (max(code, 1), -2...6, 1...126)
    } else {
      let exponent = largest < .leastNormalMagnitude ? -127 : Int(largest.exponent)
      bounds = 0...(type == .f16 ? 140 : 252)
      plain = max(exponent + (largest.significand < 1.75 ? 0 : 1) - 2, -127) + 127
      plain = min(plain, bounds.upperBound)
      if exponent == -127 { plain = 0 }
      (middle, tried) = (exponent - 2 + 127, -2...1)
    }
    var best = (code: plain, error: error(value(plain) * down))
    for step in tried {
      let code = min(max(middle + step, bounds.lowerBound), bounds.upperBound)
      let error = error(value(code) * down)
      if error < best.error { best = (code, error) }
    }
    return (best.code, value(best.code))
  }

  private func error(_ scale: Float) -> Float {
    let own = min(max(scale, 0x1p-60), 0x1p60)
    let inverse = 1 / own
    return zip(values, weights).reduce(0) { sum, pair in
      let level = Reference.value(of: Int(Reference.nearestE2M1(pair.0.magnitude * inverse)), .e2m1)
      let difference = pair.0.magnitude - level * own
      return sum + pair.1 * difference * difference
    }
  }
}
