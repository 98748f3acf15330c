import Bytes
import Quantization
import Tensors

extension ScaledWeight {
  /// The codes of some rows, from a byte of the first one on.
  func readCodes(
    _ rows: Range<Int>, from start: Int, _ checkpoint: any StoredTensors
  ) throws(Failure) -> ScratchBuffer {
    let count = rows.upperBound * rowBytes - start
    switch arrangement {
    case .rows: return try ScratchBuffer(checkpoint, payload, at: start, count: count)
    case .turnedWords:
      let whole = try ScratchBuffer(
        turning: rows, of: checkpoint, payload, rows: height, columns: rowBytes / 4, width: 4)
      var part = ScratchBuffer(byteCount: count)
      var room = part.mutableBytes
      room.copy(from: whole.bytes.extracting(rows.count * rowBytes - count..<rows.count * rowBytes))
      return part
    case .interleaved:
      let stored = rows.lowerBound / 8..<(rows.upperBound - 1) / 8 + 1
      let words = try ScratchBuffer(
        turning: stored, of: checkpoint, payload, rows: height / 8, columns: width, width: 4)
      var part = ScratchBuffer(byteCount: count)
      var room = part.mutableBytes
      var place = 0
      for row in rows {
        let first = row == rows.lowerBound ? start - row * rowBytes : 0
        let shift = AWQOrder.shift(row)
        let line = 4 * (row / 8 - stored.lowerBound) * width
        for column in first..<width {
          let word = words.bytes.load(at: line + 4 * column, as: UInt32.self)
          room.storeBytes(of: UInt8(truncatingIfNeeded: word >> shift & 15), toByteOffset: place, as: UInt8.self)
          place += 1
        }
      }
      return part
    case .paddedWords(let bits):
      let perWord = 32 / bits
      let wordCount = (width + perWord - 1) / perWord
      let words = try ScratchBuffer(
        checkpoint, payload, at: 4 * rows.lowerBound * wordCount, count: 4 * rows.count * wordCount)
      var part = ScratchBuffer(byteCount: count)
      var room = part.mutableBytes
      // What is taken from a code of 8 bits less what would be from one of these.
      let more = UInt32(128 - 1 << (bits - 1))
      var place = 0
      for row in rows {
        let line = 4 * (row - rows.lowerBound) * wordCount
        for column in (row == rows.lowerBound ? start - row * rowBytes : 0)..<width {
          let word = words.bytes.load(at: line + 4 * (column / perWord), as: UInt32.self)
          let field = word >> UInt32(column % perWord * bits) & (1 << UInt32(bits) - 1)
          room.storeBytes(of: UInt8(truncatingIfNeeded: field + more), toByteOffset: place, as: UInt8.self)
          place += 1
        }
      }
      return part
    }
  }
}
