import Bytes
import Checkpoints
import Console
import PackedWeights
import Tensors
import Writing

/// What weights lose when they are stored in one way or another, measured before anything is written: the sum of squared
/// errors, each by what its column counts, as a share of the same sum of the weights themselves. That is about the share
/// of error in what the layer gives to the next. Which layer can be spared better than another is told by shares: layers
/// whose outputs are large anyway would have most of the errors as such.
struct LossScan {
  /// A weight, or a part of it that begins with a whole number of its rows or blocks.
  struct Part {
    var info: TensorInfo
    var elements: Range<Int>
  }

  /// Calls back with the values of a part as they will be read back, once for each way of storing them.
  typealias Reading = @Sendable (Span<Float>, Part, _ each: (Span<Float>) -> Void) throws(Failure) -> Void

  let source: any TensorSource
  let jobs: Int
  let style: Progress.Style

  private struct Weight: Sendable {
    var item: Int
    var means: [Float]?
  }

  private final class Slot: @unchecked Sendable {
    /// What the values themselves count, and what their errors do in each way.
    var energy = 0.0
    var losses: [Double] = []
  }

  /// Values of one piece: whole blocks of every size, and in the second-level cache.
  private static let elementsPerPiece = 1 << 17

  /// - Parameters:
  ///   - items: positions in `source`, of weights whose values are real numbers.
  ///   - means: the mean square of what each column is multiplied with; nil for all alike.
  ///   - unit: values that a piece of a weight may be cut at.
  ///   - stored: reads back the ways of storing.
  /// - Returns: for each item its loss in each of those ways.
  func run(
    _ items: [Int], means: (TensorInfo) throws(Failure) -> [Float]?, unit: (TensorInfo) -> Int,
    stored: @escaping Reading
  ) throws(Failure) -> [[Double]] {
    let weights = try items.map { item throws(Failure) in
      Weight(item: item, means: try means(source.tensors[item]))
    }
    let bytes = items.reduce(0) { $0.addingSaturated(source.tensors[$1].byteCount) }
    let progress = Progress("measuring", total: bytes, style: style)
    defer { progress.finish() }
    var result = items.map { _ in [Double]() }
    var energies = items.map { _ in 0.0 }
    let cursor = PartCursor(
      items.map { item in
        let info = source.tensors[item]
        let unit = max(1, unit(info))
        return (info.elementCount, max(1, Self.elementsPerPiece / unit) * unit)
      })
    let stream = OrderedStream<PartCursor, Slot>(jobs: jobs) { Slot() }
    try stream.run(cursor) { piece, slot throws(Failure) in
      let weight = weights[piece.item]
      let info = source.tensors[weight.item]
      let values = try ScratchBuffer.floats(source, weight.item, piece.range)
      slot.losses = []
      let means = weight.means ?? []
      slot.energy = Self.sum(values.floats, nil, from: piece.range.lowerBound, means.span)
      try stored(values.floats, Part(info: info, elements: piece.range)) { read in
        slot.losses.append(Self.sum(values.floats, read, from: piece.range.lowerBound, means.span))
      }
    } drain: { piece, slot throws(Failure) in
      energies[piece.item] += slot.energy
      if result[piece.item].isEmpty {
        result[piece.item] = slot.losses
      } else {
        for way in slot.losses.indices { result[piece.item][way] += slot.losses[way] }
      }
      progress.advance(by: piece.range.count * source.tensors[weights[piece.item].item].type.bitWidth / 8)
    }
    for (item, energy) in energies.enumerated() where energy > 0 {
      for way in result[item].indices { result[item][way] /= energy }
    }
    return result
  }

  /// The sum of squared differences, or of squares where there is nothing to differ from.
  private static func sum(
    _ values: Span<Float>, _ read: Span<Float>?, from start: Int, _ means: Span<Float>
  ) -> Double {
    var sum = 0.0
    var column = means.isEmpty ? 0 : start % means.count
    for index in 0..<values.count {
      let error = Double(values[index] - (read?[index] ?? 0))
      if means.isEmpty {
        sum += error * error
        continue
      }
      sum += error * error * Double(means[column])
      column += 1
      if column == means.count { column = 0 }
    }
    return sum
  }
}

/// Weights one after the other, each cut by a length of its own.
private struct PartCursor: PieceCursor {
  private let counts: [(count: Int, limit: Int)]
  private var item = 0
  private var position = 0

  init(_ counts: [(count: Int, limit: Int)]) { self.counts = counts }

  struct Piece: Sendable {
    var item: Int
    var range: Range<Int>
  }

  mutating func next() -> Piece? {
    while item < counts.count, counts[item].count == 0 { item += 1 }
    guard item < counts.count else { return nil }
    let (count, limit) = counts[item]
    let end = min(position + limit, count)
    let piece = Piece(item: item, range: position..<end)
    position = end
    if end == count { (item, position) = (item + 1, 0) }
    return piece
  }
}
