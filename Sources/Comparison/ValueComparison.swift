package import Bytes
package import Console
package import Quantization
package import Tensors

/// Measures how far tensors of the same shape are apart, in pieces and in parallel. What is found does not
/// depend on the number of workers: pieces are cut in the same places and added up in order.
package struct ValueComparison {
  package let pair: CheckpointPair
  package let jobs: Int
  package let style: Progress.Style

  package init(pair: CheckpointPair, jobs: Int, style: Progress.Style) {
    self.pair = pair
    self.jobs = jobs
    self.style = style
  }

  /// How elements of two types are compared.
  enum Method: Sendable {
    /// Compares the elements as real numbers.
    case real(RealType, RealType)
    /// Compares the elements of one type as whole numbers or bits.
    case stored(ElementType)

    /// Nil for types that have nothing in common, such as BF16 and I64.
    init?(_ a: ElementType, _ b: ElementType) {
      if let a = RealType(a), let b = RealType(b) {
        self = .real(a, b)
      } else if a == b {
        self = .stored(a)
      } else {
        return nil
      }
    }
  }

  private struct Work: Sendable {
    /// The position among the pairs that `run` was given.
    var number: Int
    /// The positions among the logical tensors.
    var a: Int
    var b: Int
    var method: Method
    var count: Int
    /// Bits of one element; all types of fewer than 8 bits fill whole bytes in every piece.
    var bits: (a: Int, b: Int)
    /// Bytes of both tensors together in their files.
    var byteCount: Int
  }

  /// A multiple of 8. The widest elements are 8 bytes.
  private static let elementsPerPiece = 1 << 17

  /// - Parameter positions: of pairs of one shape.
  /// - Returns: one for each of them; nil when their types cannot be compared.
  package func run(_ positions: [Int]) throws(Failure) -> [ValueDifference?] {
    var works: [Work] = []
    var result: [ValueDifference?] = []
    var total = 0
    for (number, position) in positions.enumerated() {
      let (a, b) = pair.infos(position)
      let method = Method(a.type, b.type)
      result.append(method == nil ? nil : ValueDifference())
      guard let method else { continue }
      let (left, right) = pair.common[position]
      let byteCount = pair.storedByteCount(position)
      total = total.addingSaturated(byteCount)
      works.append(
        Work(
          number: number, a: left, b: right, method: method, count: a.elementCount,
          bits: (a.type.bitWidth, b.type.bitWidth), byteCount: byteCount))
    }
    let progress = Progress("measuring", total: total, style: style)
    defer { progress.finish() }
    let stream = OrderedStream<RangeCursor, PairBuffer>(jobs: jobs) { PairBuffer(capacity: 8 * Self.elementsPerPiece) }
    let cursor = RangeCursor(works.map(\.count), limit: Self.elementsPerPiece)
    try stream.run(cursor) { [works] piece, buffer throws(Failure) in
      try compare(works[piece.item], piece.range, buffer)
    } drain: { piece, buffer throws(Failure) in
      let work = works[piece.item]
      result[work.number]?.merge(buffer.difference)
      progress.advance(by: work.byteCount.part(piece.range, of: work.count))
    }
    return result
  }

  private func compare(_ work: Work, _ elements: Range<Int>, _ buffer: PairBuffer) throws(Failure) {
    let (memoryA, memoryB) = (buffer.a, buffer.b)
    var a = memoryA.part(0..<Self.bytes(elements.count, work.bits.a))
    var b = memoryB.part(0..<Self.bytes(elements.count, work.bits.b))
    try pair.a.read(work.a, at: Self.bytes(elements.lowerBound, work.bits.a), into: &a)
    try pair.b.read(work.b, at: Self.bytes(elements.lowerBound, work.bits.b), into: &b)
    var difference = ValueDifference()
    switch work.method {
    case .real(let left, let right):
      difference.add(a.bytes, as: left, b.bytes, as: right)
    case .stored(let type):
      difference.add(a.bytes, b.bytes, as: type)
    }
    buffer.difference = difference
  }

  /// No more than the tensor has, so that the product cannot overflow.
  private static func bytes(_ elements: Int, _ bits: Int) -> Int { elements * bits / 8 }
}

extension RealType {
  package init?(_ type: ElementType) {
    switch type {
    case .bf16: self = .bf16
    case .f16: self = .f16
    case .f32: self = .f32
    case .f64: self = .f64
    default: return nil
    }
  }
}
