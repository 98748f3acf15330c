extension Reference {
  /// See `FourBitFormat.quantize(_:as:search:column:codes:scales:scaleCodes:)`.
  package static func quantize(
    _ values: UnsafeRawBufferPointer, as type: FloatType, format: FourBitFormat, search: FourBitSearch,
    column: Int = 0, codes: UnsafeMutableRawBufferPointer, scales: UnsafeMutableBufferPointer<Float>,
    scaleCodes: UnsafeMutableBufferPointer<UInt8>?
  ) throws(NonFinite) {
    let count = values.count / type.byteCount
    let blocks = format.blockCount(count)
    var searched: [SearchedBlock] = []
    for block in 0..<blocks {
      let range = block * format.blockSize..<min((block + 1) * format.blockSize, count)
      let floats = range.map { unsafe Float(load(values, $0, as: type)) }
      if let index = floats.firstIndex(where: { !$0.isFinite }) {
        throw NonFinite(index: range.lowerBound + index, value: floats[index])
      }
      let roots = search.weights.map { all in
        let first = (column + range.lowerBound) % all.columns
        return Array(all.repeated[first..<first + range.count])
      }
      searched.append(SearchedBlock(floats, roots, format.code, search.kind))
    }
    var ratios = [Float](repeating: 0, count: blocks)
    let limit = FourBitFormat.greatestScale(of: type)
    func bounded(_ value: Float) -> Float { min(max(value, -limit), limit) }
    if let scaleCodes = unsafe scaleCodes {
      for first in stride(from: 0, to: blocks, by: DoubleQuantization.blockSize) {
        let group = first..<min(first + DoubleQuantization.blockSize, blocks)
        let wanted = group.map { bounded(searched[$0].coarse() * searched[$0].largest) }
        let greatest = bounded(wanted.reduce(0) { max($0, $1.magnitude) } / 0.99296875)
        unsafe scales[first / DoubleQuantization.blockSize] = greatest
        for (scale, block) in zip(wanted, group) {
          let (position, ratio) = searched[block].stored(near: scale, greatest)
          unsafe scaleCodes[block] = UInt8(position)
          ratios[block] = ratio
        }
      }
    } else {
      for block in 0..<blocks {
        let scale = searched[block].fine(around: searched[block].coarse(), limit)
        unsafe scales[block] = scale
        ratios[block] = scale * searched[block].reciprocal
      }
    }
    var pending: UInt8 = 0
    for index in 0..<count {
      let block = index / format.blockSize
      let code = format.code.codesByLevel[searched[block].rank(index % format.blockSize, ratios[block])]
      if index % 2 == 0 { pending = code } else { unsafe codes[index / 2] = pending << 4 | code }
    }
    if count % 2 == 1 { unsafe codes[count / 2] = pending << 4 | format.code.zeroCode }
  }
}

/// One block, its values relative to their largest magnitude.
private struct SearchedBlock {
  let largest: Float
  let reciprocal: Float
  let values: [Float]
  /// Of the weights of the columns.
  let roots: [Float]?
  let kind: FourBitSearch.Kind
  /// By rising value, and what lies between them.
  let levels: [Float]
  let midpoints: [Float]

  init(_ floats: [Float], _ roots: [Float]?, _ code: FourBitCode, _ kind: FourBitSearch.Kind) {
    let largest = floats.reduce(0) { max($0, $1.magnitude) }
    let reciprocal = 1 / max(largest, 1e-38)
    self.largest = largest
    self.reciprocal = reciprocal
    values = floats.map { $0 * reciprocal }
    self.roots = roots
    self.kind = kind
    let all = code.levels
    levels = code.codesByLevel.map { all[Int($0)] }
    midpoints = code.midpoints
  }

  private static func whole(_ value: Float) -> Int { Int(value.rounded(.toNearestOrEven)) }

  /// The squared errors of whole numbers with rising levels, strip by strip.
  ///
  /// - Parameter levels: times what the values have been multiplied with, as the thresholds.
  private func error(_ numbers: [Int], _ levels: [Float], _ thresholds: [Float]) -> Float {
    let levels = levels.map(Self.whole)
    let thresholds = thresholds.map(Self.whole)
    var error: Float = 0
    for start in stride(from: 0, to: numbers.count, by: 64) {
      let strip = start..<min(start + 64, numbers.count)
      let root = roots.map { roots in strip.reduce(0) { max($0, roots[$1]) } }
      let factor = root.map { $0 == 0 ? 0 : 32767 / $0 }
      var sum = 0
      for index in strip {
        var difference = numbers[index] - levels[thresholds.count { numbers[index] > $0 }]
        if let roots, let factor {
          difference = (difference * Self.whole(roots[index] * factor) + 1 << 14) >> 15
        }
        sum += difference * difference
      }
      error += Float(sum) * (root.map { $0 * $0 } ?? 1)
    }
    return error
  }

  /// The first of the best among the ratios that are tried for all: the levels are multiplied, not the values.
  func coarse() -> Float {
    if kind == .maximum { return 1 }
    let numbers = values.map { Self.whole($0 * 16384) }
    var best: (ratio: Float, error: Float)?
    for sign in kind == .signed ? [1, -1] as [Float] : [1] {
      for step in 0..<10 {
        let ratio = sign * (0.76 + Float(step) * 0.04)
        func scaled(_ numbers: [Float]) -> [Float] {
          (sign < 0 ? numbers.reversed() : numbers).map { $0 * ratio * 16384 }
        }
        let error = error(numbers, scaled(levels), scaled(midpoints))
        if best.map({ error < $0.error }) ?? true { best = (ratio, error) }
      }
    }
    return best?.ratio ?? 1
  }

  /// A value relative to a scale, in whole numbers.
  private func number(_ index: Int, _ ratio: Float) -> Int {
    Self.whole(min(max(values[index] * ((ratio == 0 ? 0 : 1 / ratio) * 8192), -13952), 13952))
  }

  func rank(_ index: Int, _ ratio: Float) -> Int {
    let number = number(index, ratio)
    return midpoints.count { number > Self.whole($0 * 8192) }
  }

  /// The squared error of a ratio of the block's own: the values are divided.
  private func measure(_ ratio: Float) -> Float {
    let numbers = values.indices.map { number($0, ratio) }
    return error(numbers, levels.map { $0 * 8192 }, midpoints.map { $0 * 8192 }) * (ratio * ratio)
  }

  /// The scale of the first of the best ratios around one.
  func fine(around ratio: Float, _ limit: Float) -> Float {
    var best: (scale: Float, error: Float)?
    for step in kind == .maximum ? 0...0 : -2...2 {
      let scale = min(max((ratio + Float(step) * 0.01) * largest, -limit), limit)
      let error = measure(scale * reciprocal)
      if best.map({ error < $0.error }) ?? true { best = (scale, error) }
    }
    return best?.scale ?? largest
  }

  /// The best of the three scales that can be stored around one.
  ///
  /// - Parameter greatest: what the map's values are relative to.
  func stored(near scale: Float, _ greatest: Float) -> (position: Int, ratio: Float) {
    let map = DoubleQuantization.map
    let wanted = scale * (greatest == 0 ? 0 : 1 / max(greatest, 1e-38))
    // The greatest decade has 64 values of either sign, evenly spaced.
    var position: Int
    if wanted.magnitude >= 0.1 {
      let step = min(Int((wanted.magnitude - 0.1) * (64 / 0.9)), 63)
      position = wanted < 0 ? 63 - step : 191 + step
    } else {
      position = map.firstIndex { $0 >= wanted } ?? 255
      if wanted - map[position - 1] <= map[position] - wanted { position -= 1 }
    }
    position = min(max(position, 1), 254)
    var best: (position: Int, ratio: Float, error: Float)?
    for candidate in kind == .maximum ? [position] : [position, position - 1, position + 1] {
      var ratio = map[candidate] * greatest * reciprocal
      if kind != .signed, ratio < 0 { ratio = 0 }
      let error = measure(ratio)
      if best.map({ error < $0.error }) ?? true { best = (candidate, ratio, error) }
    }
    return best.map { ($0.position, $0.ratio) } ?? (position, 0)
  }
}

extension Reference {
  /// See `FourBitFormat.feedback`.
  package static func feedback(
    _ matrix: inout [Float], rows: Int, first: Int, count: Int, factor: [Float], scales: [Float], code: FourBitCode,
    codes: inout [UInt8], errors: inout [Float]
  ) {
    let columns = matrix.count / rows
    let levels = code.levels
    let midpoints = code.midpoints
    for column in 0..<count {
      let line = (first + column) * columns + first
      for row in 0..<rows {
        let value = matrix[(first + column) * rows + row]
        let scaled = scales[row] == 0 ? 0 : value / scales[row]
        let number = code.codesByLevel[midpoints.count { scaled > $0 }]
        codes[column * rows + row] = number
        let error = (value - levels[Int(number)] * scales[row]) / factor[line + column]
        errors[column * rows + row] = error
        for behind in column + 1..<max(count, column + 1) {
          matrix[(first + behind) * rows + row] -= factor[line + behind] * error
        }
      }
    }
  }
}
