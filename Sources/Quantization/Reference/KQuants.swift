/// The differences between Q2_K, Q4_K and Q5_K: sub-blocks of `size` values with levels from 0 to `greatest`, whose
/// scales and minima are multiples, up to `multiples`, of one factor each.
private struct AffineKind {
  var size: Int
  var greatest: Int
  var multiples: Int
  var steps: AffineFit.Steps
  /// Without importance: weights are the magnitudes, and so are the errors compared.
  var isAbsolute: Bool

  static let q2 = AffineKind(
    size: 16, greatest: 3, multiples: 15, steps: .init(count: 16, first: -0.5, step: 0.1), isAbsolute: true)
  static let q4 = AffineKind(
    size: 32, greatest: 15, multiples: 63, steps: .init(count: 21, first: -1, step: 0.1), isAbsolute: false)
  static let q5 = AffineKind(
    size: 32, greatest: 31, multiples: 63, steps: .init(count: 16, first: -0.5, step: 0.1), isAbsolute: false)

  func encode(_ block: BlockValues) -> (scales: Multiples, minima: Multiples, levels: [UInt8]) {
    let ranges = block.subBlocks(of: size)
    let weights = block.importanceWeights(factor: size == 16 ? 1 : 2)
    let fits = ranges.map { range in
      let values = Array(block.values[range])
      if let weights { return AffineFit(values, Array(weights[range]), greatest: greatest, .weighted) }
      return AffineFit(values, plainWeights(values), greatest: greatest, steps, isAbsolute: isAbsolute)
    }
    let (scales, minima): (Multiples, Multiples)
    if let weights {
      let sums = ranges.map { Reference.sum(weights[$0]) }
      scales = Multiples(fitting: fits.map(\.scale), sums, greatest: multiples)
      minima = Multiples(fitting: fits.map(\.minimum), sums, greatest: multiples)
    } else {
      scales = Multiples(dividingByGreatest: fits.map(\.scale), greatest: multiples)
      minima = Multiples(dividingByGreatest: fits.map(\.minimum), greatest: multiples)
    }
    let levels = ranges.indices.flatMap { index in
      scales[index] == 0
        ? block.levels(
          ranges[index], inverse: fits[index].inverse, offset: fits[index].offset, within: 0...greatest)
        : block.levels(ranges[index], scale: scales[index], minimum: minima[index], within: 0...greatest)
    }
    return (scales, minima, levels)
  }

  private func plainWeights(_ values: [Float]) -> [Float] {
    if isAbsolute { return values.map(\.magnitude) }
    let average = (Reference.sum(values.map { $0 * $0 }) / Float(values.count)).squareRoot()
    return values.map { average + $0.magnitude }
  }
}

extension Reference {
  package static func encodeQ2K(_ values: [Float], rowLength: Int, importance: [Float]?) -> [UInt8] {
    encodeBlocks(values, rowLength: rowLength, importance: importance, of: 256) { block in
      let (scales, minima, levels) = AffineKind.q2.encode(block)
      let multiples = (0..<16).map { UInt8(scales.level($0) | minima.level($0) << 4) }
      return multiples + pairs(levels) + scales.factor.bytes + minima.factor.bytes
    }
  }

  package static func encodeQ4K(_ values: [Float], rowLength: Int, importance: [Float]?) -> [UInt8] {
    encodeBlocks(values, rowLength: rowLength, importance: importance, of: 256) { block in
      let (scales, minima, levels) = AffineKind.q4.encode(block)
      return scales.factor.bytes + minima.factor.bytes + sixBits(scales, minima) + nibbles(levels, apart: 32)
    }
  }

  package static func encodeQ5K(_ values: [Float], rowLength: Int, importance: [Float]?) -> [UInt8] {
    encodeBlocks(values, rowLength: rowLength, importance: importance, of: 256) { block in
      let (scales, minima, levels) = AffineKind.q5.encode(block)
      let factors = scales.factor.bytes + minima.factor.bytes + sixBits(scales, minima)
      return factors + bits(levels, 4) + nibbles(levels, apart: 32)
    }
  }

  package static func encodeQ3K(_ values: [Float], rowLength: Int, importance: [Float]?) -> [UInt8] {
    encodeBlocks(values, rowLength: rowLength, importance: importance, of: 256) { block in
      let ranges = block.subBlocks(of: 16)
      let scales: Multiples
      let searched: (Int) -> [UInt8]
      if let weights = block.importanceWeights(factor: 2) {
        let fits = ranges.map { LinearFit(Array(block.values[$0]), Array(weights[$0]), greatest: 4) }
        let sums = ranges.map { sum(weights[$0]) }
        scales = Multiples(fittingSigned: fits.map(\.scale), sums, greatest: 32)
        searched = { searchedLevels(block, ranges[$0], fits[$0], within: -4...3) }
      } else {
        let fits = ranges.map { RefinedFit(Array(block.values[$0]), greatest: 4) }
        scales = Multiples(dividingByExtreme: fits.map(\.scale), greatest: 32, least: .leastNonzeroMagnitude, zero: -32)
        searched = { index in
          let isZero = extremeIsNegligible(block.values[ranges[index]])
          return fits[index].levels.map { isZero ? 0 : UInt8(Int($0) + 4) }
        }
      }
      let levels = ranges.indices.flatMap { index in
        scales[index] == 0 ? searched(index) : block.levels(ranges[index], scale: scales[index], within: -4...3)
      }
      return bits(levels, 2) + pairs(levels) + sixBits(scales) + scales.factor.bytes
    }
  }

  package static func encodeQ6K(_ values: [Float], rowLength: Int, importance: [Float]?) -> [UInt8] {
    encodeBlocks(values, rowLength: rowLength, importance: importance, of: 256) { block in
      let ranges = block.subBlocks(of: 16)
      let weights = block.importance ?? block.values.map { $0 * $0 }
      let fits = ranges.map { LinearFit(Array(block.values[$0]), Array(weights[$0]), greatest: 32) }
      let scales = Multiples(
        dividingByExtreme: fits.map(\.scale), greatest: 128, least: ScaleSearch.negligible, zero: 0)
      guard scales.levels.contains(where: { $0 != 0 }) else { return [UInt8](repeating: 0, count: 210) }
      let levels = ranges.indices.flatMap { index in
        scales[index] == 0
          ? searchedLevels(block, ranges[index], fits[index], within: -32...31)
          : block.levels(ranges[index], scale: scales[index], within: -32...31)
      }
      let multiples = (0..<16).map { UInt8(bitPattern: Int8(scales.level($0))) }
      return nibbles(levels, apart: 64) + pairs(levels.map { $0 >> 4 }) + multiples + scales.factor.bytes
    }
  }

  /// The levels of a sub-block of zeros are stored as 0, whatever 0 stands for: its scale is 0.
  private static func searchedLevels(
    _ block: BlockValues, _ range: Range<Int>, _ fit: LinearFit, within bounds: ClosedRange<Int>
  ) -> [UInt8] {
    fit.inverse == 0
      ? [UInt8](repeating: 0, count: range.count) : block.levels(range, inverse: fit.inverse, within: bounds)
  }

  private static func extremeIsNegligible(_ values: some Sequence<Float>) -> Bool {
    ScaleSearch.extreme(values).magnitude < ScaleSearch.negligible
  }

  /// The lower four bits of two levels in each byte.
  private static func nibbles(_ levels: [UInt8], apart: Int) -> [UInt8] {
    (0..<128).map { index in
      let first = index / apart * 2 * apart + index % apart
      return levels[first] & 15 | (levels[first + apart] & 15) << 4
    }
  }

  /// The lower two bits of four levels in each byte, 32 apart.
  private static func pairs(_ levels: [UInt8]) -> [UInt8] {
    (0..<64).map { index in
      let first = index / 32 * 128 + index % 32
      var byte: UInt8 = 0
      for part in 0..<4 { byte |= (levels[first + 32 * part] & 3) << UInt8(2 * part) }
      return byte
    }
  }

  /// One bit of eight levels in each byte, 32 apart.
  private static func bits(_ levels: [UInt8], _ bit: UInt8) -> [UInt8] {
    (0..<32).map { index in
      var byte: UInt8 = 0
      for part in 0..<8 { byte |= (levels[index + 32 * part] >> bit & 1) << UInt8(part) }
      return byte
    }
  }

  /// Eight scales and eight minima of six bits. The upper two bits of the later four lie above the first four.
  private static func sixBits(_ scales: Multiples, _ minima: Multiples) -> [UInt8] {
    func first(_ multiples: Multiples) -> [UInt8] {
      (0..<4).map { UInt8(multiples.level($0) | (multiples.level($0 + 4) >> 4) << 6) }
    }
    let rest = (4..<8).map { UInt8(scales.level($0) & 15 | (minima.level($0) & 15) << 4) }
    return first(scales) + first(minima) + rest
  }

  /// Sixteen scales of six bits, counted from -32: the lower four bits, then the upper two.
  private static func sixBits(_ scales: Multiples) -> [UInt8] {
    let counted = (0..<16).map { UInt8(scales.level($0) + 32) }
    let low = (0..<8).map { counted[$0] & 15 | (counted[$0 + 8] & 15) << 4 }
    let high = (0..<4).map { index in
      var byte: UInt8 = 0
      for part in 0..<4 { byte |= (counted[4 * part + index] >> 4) << UInt8(2 * part) }
      return byte
    }
    return low + high
  }
}
