/// The steps that the encoders of IQ4_NL and IQ4_XS share.
private enum Codebook {
  static let levels = IQ4_NL.levels

  /// The level nearest to `value`, the upper one of two.
  static func index(_ value: Float) -> Int {
    zip(levels, levels.dropFirst()).prefix { value >= ($0 + $1) / 2 }.count
  }

  /// The scale of 32 values by least squares.
  static func scale(_ values: [Float], _ weights: [Float]) -> Float {
    let extreme = ScaleSearch.extreme(values)
    guard extreme.magnitude >= ScaleSearch.negligible else { return 0 }
    func sums(_ inverse: Float) -> (products: Float, squares: Float) {
      var (products, squares): (Float, Float) = (0, 0)
      for (value, weight) in zip(values, weights) {
        let level = levels[index(inverse * value)]
        products += weight * level * value
        squares += weight * level * level
      }
      return (products, squares)
    }
    let (products, squares) = sums(1 / (-extreme / levels[0]))
    var scale = squares > 0 ? products / squares : 0
    var best = scale * products
    for step in -7...7 {
      let (products, squares) = sums((Float(step) + levels[0]) / extreme)
      guard squares > 0, products * products > best * squares else { continue }
      scale = products / squares
      best = scale * products
    }
    return scale
  }

  static func inverse(_ scale: Float) -> Float { scale == 0 ? 0 : 1 / scale }

  /// Two indices to a byte: i and i + 16.
  static func indices(_ values: ArraySlice<Float>, inverse: Float) -> [UInt8] {
    let indices = values.map { UInt8(index(inverse * $0)) }
    return (0..<16).map { indices[$0] | indices[$0 + 16] << 4 }
  }
}

extension Reference {
  package static func encodeIQ4NL(_ values: [Float], rowLength: Int, importance: [Float]?) -> [UInt8] {
    encodeBlocks(values, rowLength: rowLength, importance: importance, of: 32) { block in
      let weights = block.importanceWeights(factor: 2) ?? block.values.map { $0 * $0 }
      let scale = Codebook.scale(block.values, weights)
      return BlockFactor(scale).bytes + Codebook.indices(block.values[...], inverse: Codebook.inverse(scale))
    }
  }

  package static func encodeIQ4XS(_ values: [Float], rowLength: Int, importance: [Float]?) -> [UInt8] {
    encodeBlocks(values, rowLength: rowLength, importance: importance, of: 256) { block in
      let weights = block.importanceWeights(factor: 2) ?? block.values.map { $0 * $0 }
      let ranges = block.subBlocks(of: 32)
      let scales = ranges.map { Codebook.scale(Array(block.values[$0]), Array(weights[$0])) }
      // The levels of the sub-blocks are chosen with the factor before it is rounded.
      let scale = -ScaleSearch.extreme(scales) / 32
      let multiples = scales.map { ScaleSearch.nearest(Codebook.inverse(scale) * $0, within: -32...31) }
      var low = [UInt8](repeating: 0, count: 4)
      var high: UInt16 = 0
      for (index, multiple) in multiples.enumerated() {
        let counted = UInt8(multiple + 32)
        low[index / 2] |= (counted & 15) << UInt8(index % 2 * 4)
        high |= UInt16(counted >> 4) << UInt16(2 * index)
      }
      let indices = zip(ranges, multiples).flatMap { range, multiple in
        Codebook.indices(block.values[range], inverse: Codebook.inverse(scale * multiple))
      }
      return BlockFactor(scale).bytes + [UInt8(high & 0xFF), UInt8(high >> 8)] + low + indices
    }
  }
}
