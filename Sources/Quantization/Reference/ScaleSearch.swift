/// The searches for the scale of a sub-block: the steps of ggml's `make_qkx2_quants`, `make_qkx3_quants`,
/// `make_qx_quants`, `make_q3_quants` and `make_qp_quants`, in their order of operations, so that the same
/// scales are found to the last bit. Levels are whole numbers kept as floats.
enum ScaleSearch {
  /// ggml takes a sub-block whose values are all below this for zeros.
  static let negligible: Float = 1e-15

  /// ggml's nearest integer, ties to even: beyond 22 bits it is what is left of the fraction. Within these bounds
  /// afterwards.
  static func nearest(_ value: Float, within bounds: ClosedRange<Int>) -> Float {
    let bits = (value + 12_582_912).bitPattern
    let integer = Int(bits & 0x7F_FFFF) - 0x40_0000
    return Float(min(max(integer, bounds.lowerBound), bounds.upperBound))
  }

  static func rounded(_ value: Float, within bounds: ClosedRange<Int>) -> Float {
    min(max(value.rounded(.toNearestOrEven), Float(bounds.lowerBound)), Float(bounds.upperBound))
  }

  /// The value of greatest magnitude, the first of several.
  static func extreme(_ values: some Sequence<Float>) -> Float {
    var extreme: Float = 0
    for value in values where value.magnitude > extreme.magnitude { extreme = value }
    return extreme
  }
}

/// value = scale * level - minimum. The levels were found as inverse * (value - offset).
struct AffineFit {
  var scale: Float
  var minimum: Float
  var inverse: Float
  var offset: Float

  /// How many scales are tried, and how many levels more than the greatest each would spread the values over.
  struct Steps {
    var count: Int
    var first: Float
    var step: Float

    static let weighted = Steps(count: 37, first: -0.9, step: 0.05)
  }

  /// By least squares, weighted. `isAbsolute`: fits are compared by their absolute errors.
  init(_ values: [Float], _ weights: [Float], greatest: Int, _ steps: Steps, isAbsolute: Bool = false) {
    let least = min(values.reduce(values[0], Swift.min), 0)
    let most = values.reduce(values[0], Swift.max)
    var weightSum = weights[0]
    var valueSum = weights[0] * values[0]
    for index in values.indices.dropFirst() {
      weightSum += weights[index]
      valueSum += weights[index] * values[index]
    }
    func spread(_ levels: Float, from minimum: Float) -> Float {
      // Where the range is too small to be inverted, 0 makes all levels 0, as infinity does in ggml.
      let inverse = levels / (most - minimum)
      return inverse.isFinite ? inverse : 0
    }
    func level(_ value: Float, _ inverse: Float, _ minimum: Float) -> Float {
      ScaleSearch.rounded(inverse * (value - minimum), within: 0...greatest)
    }
    func error(_ levels: [Float], _ scale: Float, _ minimum: Float) -> Float {
      var sum: Float = 0
      for index in values.indices {
        let difference = scale * levels[index] + minimum - values[index]
        sum += weights[index] * (isAbsolute ? difference.magnitude : difference * difference)
      }
      return sum
    }

    var tried = spread(Float(greatest), from: least)
    (offset, inverse) = (least, tried)
    scale = tried == 0 ? 0 : 1 / tried
    var minimum = least
    var bestError = error(values.map { level($0, tried, least) }, scale, least)
    for step in 0..<steps.count {
      tried = spread(steps.step * Float(step) + steps.first + Float(greatest), from: minimum)
      let levels = values.map { level($0, tried, minimum) }
      var (sum, squares, products): (Float, Float, Float) = (0, 0, 0)
      for index in values.indices {
        let weighted = weights[index] * levels[index]
        sum += weighted
        squares += weighted * levels[index]
        products += weighted * values[index]
      }
      let determinant = weightSum * squares - sum * sum
      guard determinant > 0 else { continue }
      var newScale = (weightSum * products - valueSum * sum) / determinant
      var newMinimum = (squares * valueSum - sum * products) / determinant
      if newMinimum > 0 { (newScale, newMinimum) = (products / squares, 0) }
      let newError = error(levels, newScale, newMinimum)
      guard newError < bestError else { continue }
      bestError = newError
      (inverse, offset) = (tried, minimum)
      (scale, minimum) = (newScale, newMinimum)
    }
    self.minimum = 0 - minimum
  }
}

/// value = scale * level, with levels from -greatest to greatest - 1 found as inverse * value.
struct LinearFit {
  var scale: Float
  var inverse: Float

  /// By least squares, weighted.
  init(_ values: [Float], _ weights: [Float], greatest: Int) {
    let extreme = ScaleSearch.extreme(values)
    (scale, inverse) = (0, 0)
    guard extreme.magnitude >= ScaleSearch.negligible else { return }
    func sums(_ inverse: Float) -> (products: Float, squares: Float) {
      var (products, squares): (Float, Float) = (0, 0)
      for (value, weight) in zip(values, weights) {
        let level = ScaleSearch.rounded(inverse * value, within: -greatest...greatest - 1)
        products += weight * value * level
        squares += weight * level * level
      }
      return (products, squares)
    }
    inverse = Float(-greatest) / extreme
    let (products, squares) = sums(inverse)
    scale = squares == 0 ? 0 : products / squares
    var best = scale * products
    for step in -9...9 where step != 0 {
      let tried = -(Float(greatest) + 0.1 * Float(step)) / extreme
      let (products, squares) = sums(tried)
      guard squares > 0, products * products > best * squares else { continue }
      scale = products / squares
      best = scale * products
      inverse = tried
    }
  }
}

/// value = scale * level where one level after the other is moved to where the scale of all others would have it.
struct RefinedFit {
  var scale: Float
  var levels: [Float]

  /// From -greatest to greatest - 1, weighted by the squares of the values.
  init(_ values: [Float], greatest: Int) {
    let extreme = ScaleSearch.extreme(values)
    let isZero = extreme.magnitude < ScaleSearch.negligible
    let bounds = -greatest...greatest - 1
    let inverse = isZero ? 0 : Float(-greatest) / extreme
    levels = values.map { ScaleSearch.rounded(inverse * $0, within: bounds) }
    scale = isZero ? 0 : LevelMoves.scale(values, values.map { $0 * $0 }, &levels, within: bounds)
  }

  /// From 0 to greatest, with a factor found first. No value is negative.
  init(positive values: [Float], _ weights: [Float], greatest: Int) {
    levels = [Float](repeating: 0, count: values.count)
    scale = 0
    let most = values.reduce(0, max)
    guard most >= ScaleSearch.negligible else { return }
    func level(_ value: Float, _ inverse: Float) -> Float {
      ScaleSearch.nearest(inverse * value, within: 0...greatest)
    }
    func error(_ inverse: Float) -> Float {
      let scale = 1 / inverse
      var sum: Float = 0
      for (value, weight) in zip(values, weights) {
        let difference = value - scale * level(value, inverse)
        sum += weight * difference * difference
      }
      return sum
    }
    var best = Float(greatest) / most
    var bestError = error(best)
    for step in -4...4 where step != 0 {
      let tried = (0.1 * Float(step) + Float(greatest)) / most
      let newError = error(tried)
      if newError < bestError { (best, bestError) = (tried, newError) }
    }
    levels = values.map { level($0, best) }
    scale = LevelMoves.scale(values, weights, &levels, within: 0...greatest)
  }
}

private enum LevelMoves {
  /// Moves `levels` in at most five rounds; returns the scale by least squares.
  static func scale(
    _ values: [Float], _ weights: [Float], _ levels: inout [Float], within bounds: ClosedRange<Int>
  ) -> Float {
    var (products, squares): (Float, Float) = (0, 0)
    for index in values.indices {
      products += weights[index] * values[index] * levels[index]
      squares += weights[index] * levels[index] * levels[index]
    }
    let isSigned = bounds.lowerBound < 0
    for _ in 0..<5 {
      var hasMoved = false
      for index in values.indices {
        let (value, weight, level) = (values[index], weights[index], levels[index])
        var newProducts = products - weight * value * level
        var newSquares = squares - weight * level * level
        guard newProducts > 0, isSigned || newSquares > 0 else { continue }
        let moved = ScaleSearch.nearest(value * newSquares / newProducts, within: bounds)
        guard moved != level else { continue }
        newProducts += weight * value * moved
        newSquares += weight * moved * moved
        guard !isSigned || newSquares > 0,
          newProducts * newProducts * squares > products * products * newSquares
        else { continue }
        levels[index] = moved
        (products, squares) = (newProducts, newSquares)
        hasMoved = true
      }
      if !hasMoved { break }
    }
    return squares > 0 ? products / squares : 0
  }
}
