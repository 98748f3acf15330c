import Bytes
import Quantization
import Tensors

/// The zero points of a weight's groups: whole numbers that are taken from its codes.
struct ZeroPoints: Sendable {
  enum Storage: Sendable {
    /// I8, one for each scale.
    case bytes
    /// Fields of `bits`, packed along the rows of the weight: 32-bit words [groups, words].
    case words(bits: Int)
    /// The same, [words, groups].
    case turnedWords(bits: Int)
    /// Fields of 4 bits in AWQ's order: 32-bit words [groups, words].
    case interleaved

    var bits: Int {
      switch self {
      case .bytes: 8
      case .words(let bits), .turnedWords(let bits): bits
      case .interleaved: 4
      }
    }
  }

  /// Position among the stored tensors.
  let index: Int
  let storage: Storage
  /// What is to be added to a field, modulo 2^bits.
  var increment = 0

  /// - Parameter range: rows of the grid of scales.
  /// - Returns: numbers in the order of the scales.
  func read(
    _ range: Range<Int>, _ grid: ScaleGrid, of checkpoint: any StoredTensors
  ) throws(Failure) -> ScratchBuffer {
    let groups = grid.columns
    var result = ScratchBuffer(byteCount: 4 * range.count * groups)
    switch storage {
    case .bytes:
      let stored = try ScratchBuffer(checkpoint, index, at: range.lowerBound * groups, count: range.count * groups)
      let one: [Float] = [1]
      var values = result.mutableBytes
      CodeType.int8.dequantize(
        stored.bytes, scales: one.span, zeros: [Float]().span, groupSize: max(1, range.count * groups), into: &values,
        as: .f32)
    case .words, .turnedWords, .interleaved:
      let bits = storage.bits
      // Words that hold the fields of these rows.
      let words = range.lowerBound * bits / 32..<(range.upperBound * bits + 31) / 32
      let total = (grid.rows * bits + 31) / 32
      var isTurned = false
      if case .turnedWords = storage { isTurned = true }
      var stored = ScratchBuffer(byteCount: 4 * groups * words.count)
      if isTurned {
        let part = try ScratchBuffer(
          checkpoint, index, at: 4 * words.lowerBound * groups, count: 4 * words.count * groups)
        var room = stored.mutableBytes
        transpose(part.bytes, rows: words.count, columns: groups, elementBytes: 4, into: &room)
      } else {
        var room = stored.mutableBytes
        for group in 0..<groups {
          var piece = room.part(4 * group * words.count..<4 * (group + 1) * words.count)
          try checkpoint.read(index, at: 4 * (group * total + words.lowerBound), into: &piece)
        }
      }
      unpack(stored.bytes, range, from: words, bits, groups, into: &result)
    }
    return result
  }

  private func unpack(
    _ stored: RawSpan, _ range: Range<Int>, from words: Range<Int>, _ bits: Int, _ groups: Int,
    into result: inout ScratchBuffer
  ) {
    let mask = 1 << bits - 1
    var numbers = result.mutableFloats
    for group in 0..<groups {
      for row in range {
        var bit = row * bits - 32 * words.lowerBound
        if case .interleaved = storage { bit = bit / 32 * 32 + Int(AWQOrder.shift(row)) }
        let word = group * words.count + bit / 32
        var field = UInt64(stored.load(at: 4 * word, as: UInt32.self))
        if bit % 32 + bits > 32 { field |= UInt64(stored.load(at: 4 * word + 4, as: UInt32.self)) << 32 }
        let value = (Int(truncatingIfNeeded: field >> UInt64(bit % 32)) + increment) & mask
        numbers[(row - range.lowerBound) * groups + group] = Float(value)
      }
    }
  }
}
