/// Bytes that grow with the batch and the sequence.
struct SavedBytes: Sendable {
  private struct Term: Sendable, Hashable {
    let extent: SavedTensor.Extent
    let lengths: Range<Int>
    var isForBatches = false
  }

  private var factors: [Term: Checked] = [:]

  mutating func add(_ tensor: SavedTensor, width: Checked) {
    let element: Checked =
      switch tensor.element {
      case .model: width
      case .byte: 1
      case .int32, .float32: 4
      case .int64: 8
      }
    factors[Term(extent: tensor.extent, lengths: tensor.lengths, isForBatches: tensor.isForBatches), default: 0] +=
      tensor.sizes.reduce(element) { $0 * Checked($1) }
  }

  mutating func add(_ extent: SavedTensor.Extent, _ bytes: Checked) {
    factors[Term(extent: extent, lengths: 0..<Int.max), default: 0] += bytes
  }

  static func += (a: inout SavedBytes, b: SavedBytes) { a.factors.merge(b.factors, uniquingKeysWith: +) }

  static func * (a: SavedBytes, count: Int) -> SavedBytes {
    var product = a
    product.factors = a.factors.mapValues { $0 * Checked(count) }
    return product
  }

  func bytes(batch: Int, sequence: Int) -> Checked {
    let (number, length) = (Checked(batch), Checked(sequence))
    return factors.sum { term, factor in
      guard term.lengths.contains(sequence), batch > 1 || !term.isForBatches else { return 0 }
      return switch term.extent {
      case .once: factor
      case .positions: factor * length
      case .tokens: factor * number * length
      case .pairs: factor * number * length * length
      }
    }
  }
}
