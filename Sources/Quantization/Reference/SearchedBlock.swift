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
      let weights = search.weights.map { all in
        let first = (column + range.lowerBound) % all.columns
        return Array(all.repeated[first..<first + range.count])
      }
      searched.append(SearchedBlock(floats, weights, format.code, isSigned: search.isSigned))
    }
    var ratios = [Float](repeating: 0, count: blocks)
    if let scaleCodes = unsafe scaleCodes {
      for first in stride(from: 0, to: blocks, by: DoubleQuantization.blockSize) {
        let group = first..<min(first + DoubleQuantization.blockSize, blocks)
        let wanted = group.map { SearchedBlock.bounded(searched[$0].coarse() * searched[$0].largest) }
        let greatest = SearchedBlock.bounded(wanted.reduce(0) { max($0, $1.magnitude) } / 0.99296875)
        unsafe scales[first / DoubleQuantization.blockSize] = greatest
        for (scale, block) in zip(wanted, group) {
          let (position, ratio) = searched[block].stored(near: scale, greatest)
          unsafe scaleCodes[block] = UInt8(position)
          ratios[block] = ratio
        }
      }
    } else {
      for block in 0..<blocks {
        let scale = SearchedBlock.bounded(searched[block].refined(searched[block].coarse()) * searched[block].largest)
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
  let weights: [Float]?
  let isSigned: Bool
  /// By rising value, and what lies between them.
  let levels: [Float]
  let midpoints: [Float]

  init(_ floats: [Float], _ weights: [Float]?, _ code: FourBitCode, isSigned: Bool) {
    let largest = floats.reduce(0) { max($0, $1.magnitude) }
    let reciprocal = 1 / max(largest, 1e-38)
    self.largest = largest
    self.reciprocal = reciprocal
    values = floats.map { $0 * reciprocal }
    self.weights = weights
    self.isSigned = isSigned
    let all = code.levels
    levels = code.codesByLevel.map { all[Int($0)] }
    midpoints = code.midpoints
  }

  static func bounded(_ value: Float) -> Float {
    min(max(value, -.greatestFiniteMagnitude), .greatestFiniteMagnitude)
  }

  private func weighted(_ term: Float, _ index: Int) -> Float { weights.map { $0[index] * term } ?? term }

  /// The first of the best among the ratios that are tried: the levels are multiplied, not the values.
  func coarse() -> Float {
    var best: (ratio: Float, error: Float)?
    for sign in isSigned ? [1, -1] as [Float] : [1] {
      for step in 0..<10 {
        let ratio = sign * (0.76 + Float(step) * 0.04)
        let tried = (sign < 0 ? levels.reversed() : levels).map { $0 * ratio }
        let thresholds = (sign < 0 ? midpoints.reversed() : midpoints).map { $0 * ratio }
        var error: Float = 0
        for (index, value) in values.enumerated() {
          let difference = value - tried[thresholds.count { value > $0 }]
          error += weighted(difference * difference, index)
        }
        if best.map({ error < $0.error }) ?? true { best = (ratio, error) }
      }
    }
    return best?.ratio ?? 1
  }

  private struct Sums {
    var error: Float = 0
    var products: Float = 0
    var squares: Float = 0
  }

  func rank(_ index: Int, _ ratio: Float) -> Int {
    let scaled = values[index] * (ratio == 0 ? 0 : 1 / ratio)
    return midpoints.count { scaled > $0 }
  }

  private func measure(_ ratio: Float) -> Sums {
    var sums = Sums()
    for (index, value) in values.enumerated() {
      let level = levels[rank(index, ratio)]
      let difference = value - level * ratio
      sums.error += weighted(difference * difference, index)
      sums.products += weighted(level * value, index)
      sums.squares += weighted(level * level, index)
    }
    return sums
  }

  /// Least squares for the codes, codes for the scale, by turns.
  func refined(_ ratio: Float) -> Float {
    var tried = ratio
    var best: (ratio: Float, error: Float)?
    for _ in 0...3 {
      let sums = measure(tried)
      if best.map({ sums.error < $0.error }) ?? true { best = (tried, sums.error) }
      if sums.squares > 0 { tried = sums.products / sums.squares }
    }
    return best?.ratio ?? ratio
  }

  /// The best of the three scales that can be stored around one.
  ///
  /// - Parameter greatest: what the map's values are relative to.
  func stored(near scale: Float, _ greatest: Float) -> (position: Int, ratio: Float) {
    let map = DoubleQuantization.map
    let wanted = scale * (greatest == 0 ? 0 : 1 / max(greatest, 1e-38))
    let above = map.firstIndex { $0 >= wanted } ?? 256
    var position = min(above, 255)
    if above > 0, above < 256, wanted - map[above - 1] <= map[above] - wanted { position = above - 1 }
    position = min(max(position, 1), 254)
    var best: (position: Int, ratio: Float, error: Float)?
    for candidate in [position, position - 1, position + 1] {
      var ratio = map[candidate] * greatest * reciprocal
      if !isSigned, ratio < 0 { ratio = 0 }
      let error = measure(ratio).error
      if best.map({ error < $0.error }) ?? true { best = (candidate, ratio, error) }
    }
    return best.map { ($0.position, $0.ratio) } ?? (position, 0)
  }
}
