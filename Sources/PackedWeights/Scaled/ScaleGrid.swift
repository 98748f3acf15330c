import Bytes
import Quantization
import Tensors

/// The scales of a weight: which of its elements share one, and how they are stored.
struct ScaleGrid: Sendable {
  /// Numbers, or codes that stand for them.
  enum Storage: Sendable, Equatable {
    case floats(FloatType)
    case codes(CodeType)

    /// How scales may be stored; nil for a type that holds none.
    ///
    /// - Parameter bytesAs: what U8 is.
    init?(_ type: ElementType, bytesAs: CodeType? = .e8m0) {
      switch type {
      case .f8e8m0: self = .codes(.e8m0)
      case .f8e4m3: self = .codes(.e4m3)
      case .u8: if let bytesAs { self = .codes(bytesAs) } else { return nil }
      default: if let float = FloatType(type) { self = .floats(float) } else { return nil }
      }
    }

    var byteCount: Int { if case .floats(let type) = self { type.byteCount } else { 1 } }
  }

  /// A scale of all scales, stored as one F32.
  struct Factor: Sendable {
    var index: Int
    /// Whether scales are divided by it, or multiplied.
    var divides: Bool
  }

  /// Position among the stored tensors.
  let index: Int
  let storage: Storage
  /// Elements of a column and of a row that share a scale, at least 1.
  let blockRows: Int
  let blockColumns: Int
  /// Scales of one matrix.
  let rows: Int
  let columns: Int
  /// Whether they are stored [columns, rows].
  var isTurned = false
  /// What they are rounded to before anything is computed.
  var roundedTo: FloatType?
  var factor: Factor?

  /// Rows of a grid of all matrices that cover some rows of a stack of matrices.
  ///
  /// - Parameter height: rows of one matrix.
  func row(of row: Int, height: Int) -> Int { row / height * rows + row % height / blockRows }

  /// The scales of some rows of the grid, [rows, columns].
  func read(_ range: Range<Int>, of checkpoint: any StoredTensors) throws(Failure) -> ScratchBuffer {
    let count = range.count * columns
    let width = storage.byteCount
    let stored =
      try isTurned
      ? ScratchBuffer(turning: range, of: checkpoint, index, rows: rows, columns: columns, width: width)
      : ScratchBuffer(checkpoint, index, at: range.lowerBound * columns * width, count: count * width)
    var result = ScratchBuffer(byteCount: 4 * count)
    switch storage {
    case .floats(let type):
      var values = result.mutableBytes
      // Every value of 16 bits has one of 32.
      do throws(Overflow) { try convert(stored.bytes, from: type, to: .f32, into: &values) } catch {
        throw Failure(.internal, "a scale beyond float32", tensor: checkpoint.tensors[index].name.string)
      }
    case .codes(let type):
      let one: [Float] = [1]
      var values = result.mutableBytes
      type.dequantize(
        stored.bytes, scales: one.span, zeros: [Float]().span, groupSize: max(1, count), into: &values, as: .f32)
    }
    if let roundedTo, roundedTo != .f32, storage == .floats(.f32) {
      do throws(Failure) { try Self.round(&result, count, to: roundedTo) } catch {
        throw error.located(file: checkpoint.location(of: index).file, tensor: checkpoint.tensors[index].name.string)
      }
    }
    if let factor {
      let stored = try ScratchBuffer(checkpoint, factor.index, at: 0, count: 4)
      let number = stored.floats[0]
      var values = result.mutableFloats
      for at in 0..<count { values[at] = factor.divides ? values[at] / number : values[at] * number }
    }
    return result
  }

  private static func round(_ scales: inout ScratchBuffer, _ count: Int, to type: FloatType) throws(Failure) {
    var narrow = ScratchBuffer(byteCount: type.byteCount * count)
    do throws(Overflow) {
      var room = narrow.mutableBytes
      try convert(scales.bytes, from: .f32, to: type, into: &room)
      var back = scales.mutableBytes
      try convert(narrow.bytes, from: type, to: .f32, into: &back)
    } catch { throw Failure(.malformed, "has the scale \(error.value), beyond the range of \(type.torchName)") }
  }
}

extension ScratchBuffer {
  /// Rows of a matrix, [rows, columns], that is stored the other way round.
  ///
  /// - Parameters:
  ///   - range: rows that are wanted.
  ///   - width: bytes of an element: 2, 4 or 8.
  init(
    turning range: Range<Int>, of checkpoint: any StoredTensors, _ index: Int, rows: Int, columns: Int, width: Int
  ) throws(Failure) {
    let part = range.count * width
    var panel = ScratchBuffer(byteCount: columns * part)
    var room = panel.mutableBytes
    for column in 0..<columns {
      var piece = room.part(column * part..<(column + 1) * part)
      try checkpoint.read(index, at: (column * rows + range.lowerBound) * width, into: &piece)
    }
    self.init(byteCount: columns * part)
    var output = mutableBytes
    transpose(panel.bytes, rows: columns, columns: range.count, elementBytes: width, into: &output)
  }
}
