package import Bytes
package import Checkpoints
package import Console
import GGUF
package import JSON
import PackedWeights
package import Quantization
package import Tensors

/// The statistics of one tensor's values that `inspect --stats` shows.
public struct TensorStatistics: Sendable {
  /// Nil for a type that holds no real numbers.
  package var values: ValueStatistics?
  /// Against the tensor of the same name elsewhere; nil when it was not asked for or is not there.
  package var error: Difference?

  /// How far two tensors of the same shape are apart.
  package struct Difference: Sendable {
    var count = 0
    var largest = 0.0
    var sumOfSquares = 0.0
    var referenceSumOfSquares = 0.0

    var rootMeanSquare: Double { count > 0 ? (sumOfSquares / Double(count)).squareRoot() : 0 }
    /// Mean square of the error over mean square of the reference.
    package var relativeMeanSquare: Double {
      referenceSumOfSquares > 0 ? sumOfSquares / referenceSumOfSquares : sumOfSquares == 0 ? 0 : .infinity
    }

    mutating func merge(_ other: Difference) {
      count += other.count
      largest = max(largest, other.largest)
      sumOfSquares += other.sumOfSquares
      referenceSumOfSquares += other.referenceSumOfSquares
    }
  }

  package static let headings = ["min", "max", "mean", "std", "zeros", "nan", "inf", "rmse", "rel.mse"]

  package var cells: [String] {
    guard let values else { return Self.headings.map { _ in "-" } }
    let hasFinite = values.finite > 0
    return [
      hasFinite ? Self.short(values.minimum) : "-", hasFinite ? Self.short(values.maximum) : "-",
      hasFinite ? Self.short(values.mean) : "-", hasFinite ? Self.short(values.standardDeviation) : "-",
      Self.short(fractionOfZeros), String(values.nans), String(values.infinities),
      error.map { Self.short($0.rootMeanSquare) } ?? "-", error.map { Self.short($0.relativeMeanSquare) } ?? "-",
    ]
  }

  private var fractionOfZeros: Double {
    guard let values, values.count > 0 else { return 0 }
    return Double(values.zeros) / Double(values.count)
  }

  /// Four significant digits.
  package static func short(_ value: Double) -> String {
    guard value.isFinite, value != 0 else { return value == 0 ? "0" : "inf" }
    var exponent = 0
    var magnitude = abs(value)
    while magnitude >= 9.9995 {
      magnitude /= 10
      exponent += 1
    }
    while magnitude < 0.99995 {
      magnitude *= 10
      exponent -= 1
    }
    let digits = (magnitude * 1000).rounded()
    let sign = value < 0 ? "-" : ""
    // Read back from decimal digits, so that no rounding of a product shows.
    return Double("\(sign)\(Int(digits))e\(exponent - 3)").flatMap { JSONNumber($0)?.text } ?? "?"
  }

  package var json: JSONValue {
    func number(_ value: Double) -> JSONValue { JSONNumber(value).map(JSONValue.number) ?? .null }
    guard let values else { return .null }
    var object: JSONObject = [
      "min": number(values.minimum), "max": number(values.maximum), "mean": number(values.mean),
      "std": number(values.standardDeviation), "zeros": number(fractionOfZeros), "nan": .number(values.nans),
      "inf": .number(values.infinities),
    ]
    if let error {
      object["error"] = [
        "maxAbs": number(error.largest), "rmse": number(error.rootMeanSquare),
        "relativeMse": number(error.relativeMeanSquare),
      ]
    }
    return .object(object)
  }
}

/// Reads tensors in pieces, in parallel, and gathers statistics in order.
package struct StatisticsScan {
  package let source: DequantizedSource
  /// Quantized weights are compared, with the tensor of the same name here.
  package let reference: Reference?
  package let jobs: Int
  package let progress: Progress

  package init(source: DequantizedSource, reference: Reference?, jobs: Int, progress: Progress) {
    self.source = source
    self.reference = reference
    self.jobs = jobs
    self.progress = progress
  }

  package enum Reference: Sendable {
    case model(OriginalModel)
    /// Under the names that tensors have in GGUF.
    case gguf(any TensorSource)
  }

  private struct Piece: Sendable {
    var position: Int
    var item: Int
    var elements: Range<Int>
  }

  private struct Cursor: PieceCursor {
    var pieces: [(position: Int, item: Int, count: Int)]
    var current = 0
    var element = 0
    static let elementsPerPiece = 1 << 18

    mutating func next() -> Piece? {
      guard current < pieces.count else { return nil }
      let (position, item, count) = pieces[current]
      let end = min(element + Self.elementsPerPiece, count)
      let piece = Piece(position: position, item: item, elements: element..<end)
      element = end
      if end == count {
        current += 1
        element = 0
      }
      return piece
    }
  }

  private final class Slot: @unchecked Sendable {
    var values: ValueStatistics?
    var error: TensorStatistics.Difference?
  }

  /// - Parameter items: positions in `source.tensors`.
  package func run(_ items: [Int]) throws(Failure) -> [TensorStatistics] {
    var result = items.map { _ in TensorStatistics() }
    let counterparts = try items.map { item throws(Failure) in try counterpart(of: item) }
    let cursor = Cursor(
      pieces: items.enumerated().filter { source.tensors[$1].type.isFloat }.map {
        ($0, $1, source.tensors[$1].elementCount)
      })
    let stream = OrderedStream<Cursor, Slot>(jobs: jobs) { Slot() }
    try stream.run(cursor) { piece, slot throws(Failure) in
      let floats = try ScratchBuffer.floats(source, piece.item, piece.elements)
      var statistics = ValueStatistics()
      statistics.add(floats.bytes, as: .f32)
      slot.values = statistics
      slot.error = nil
      if let (other, index) = counterparts[piece.position] {
        let expected = try ScratchBuffer.floats(other, index, piece.elements)
        slot.error = Self.difference(floats.floats, expected.floats)
      }
    } drain: { piece, slot throws(Failure) in
      if let values = slot.values {
        var sum = result[piece.position].values ?? ValueStatistics()
        sum.merge(values)
        result[piece.position].values = sum
      }
      if let error = slot.error {
        var sum = result[piece.position].error ?? TensorStatistics.Difference()
        sum.merge(error)
        result[piece.position].error = sum
      }
      let whole = source.tensors[piece.item].elementCount
      progress.advance(by: source.storedByteCount(of: piece.item).part(piece.elements, of: whole))
    }
    return result
  }

  private func counterpart(of item: Int) throws(Failure) -> (any TensorSource, Int)? {
    switch reference {
    case nil: return nil
    case .model(let model):
      guard let weight = source.logical.items[item].packed else { return nil }
      let index = try position(of: weight.info, in: model.values)
      return (try model.oriented(index, as: weight.info.shape), index)
    case .gguf(let other):
      guard let values = source.logical.checkpoint.files.gguf,
        case .plain(let stored) = source.logical.items[item], values.checkpoint.tensors[stored].type.isQuantized
      else { return nil }
      let info = values.tensors[stored]
      let index = try position(of: info, in: other)
      guard other.tensors[index].shape == info.shape else {
        throw Failure(
          .malformed, "has shape \(info.shape) here, \(other.tensors[index].shape) in the checkpoint to compare with",
          tensor: info.name.string)
      }
      return (other, index)
    }
  }

  private func position(of info: TensorInfo, in other: any TensorSource) throws(Failure) -> Int {
    guard let index = other.tensors.firstIndex(where: { $0.name == info.name }) else {
      throw Failure(.missing, "is not in the checkpoint to compare with", tensor: info.name.string)
    }
    guard other.tensors[index].type.isFloat else {
      throw Failure(
        .malformed, "is \(other.tensors[index].type.name) in the checkpoint to compare with", tensor: info.name.string)
    }
    return index
  }

  private static func difference(
    _ values: Span<Float>, _ reference: Span<Float>
  ) -> TensorStatistics.Difference {
    precondition(values.count == reference.count, "not as many values on both sides")
    var result = TensorStatistics.Difference()
    for index in 0..<values.count {
      let expected = Double(reference[index])
      let error = abs(Double(values[index]) - expected)
      result.largest = max(result.largest, error)
      result.sumOfSquares += error * error
      result.referenceSumOfSquares += expected * expected
    }
    result.count = values.count
    return result
  }
}
