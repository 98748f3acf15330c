import Kernels

extension BlockType {
  /// The overload for unsafe buffers; those read and those written must not overlap.
  package func decode(_ blocks: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let row = row
    let count = blocks.count / row.bytesPerBlock
    precondition(blocks.count % row.bytesPerBlock == 0, "half a block")
    precondition(values.count / row.valuesPerBlock >= count, "values too short")
    guard let from = blocks.baseAddress, let to = values.baseAddress else { return }
    if let decoder = unsafe row.decoder {
      return unsafe decoder(from.assumingMemoryBound(to: UInt8.self), count, to)
    }
    for block in 0..<count {
      let bytes = unsafe UnsafeRawBufferPointer(
        start: from + block * row.bytesPerBlock, count: row.bytesPerBlock)
      unsafe row.codec.decode(
        bytes, into: UnsafeMutableBufferPointer(start: to + block * row.valuesPerBlock, count: row.valuesPerBlock))
    }
  }

  /// The overload for unsafe buffers; those read and those written must not overlap.
  package func encode(
    _ values: UnsafeBufferPointer<Float>, rowLength: Int, importance: UnsafeBufferPointer<Float>?,
    into blocks: UnsafeMutableRawBufferPointer
  ) throws(NonFinite) {
    let row = row
    precondition(rowLength > 0 && rowLength % row.valuesPerBlock == 0, "half a block in a row")
    precondition(values.count % rowLength == 0, "half a row")
    precondition(blocks.count / row.bytesPerBlock >= values.count / row.valuesPerBlock, "blocks too short")
    if let importance = unsafe importance {
      precondition(importance.count == rowLength, "as many weights as columns")
    } else {
      precondition(row.importance != .required, "this kind is not encoded without importance")
    }
    guard let from = values.baseAddress, let to = blocks.baseAddress else { return }
    let blocksPerRow = rowLength / row.valuesPerBlock
    let rowBytes = blocksPerRow * row.bytesPerBlock
    // Checked and encoded while they lie in the second-level cache; the encoders do several rows side by side.
    let rowsAtOnce = max(1, 32768 / rowLength)
    let halves = row.codec.halves
    for first in stride(from: 0, to: values.count / rowLength, by: rowsAtOnce) {
      let rows = min(rowsAtOnce, values.count / rowLength - first)
      let start = first * rowLength
      let piece = unsafe UnsafeBufferPointer(start: from + start, count: rows * rowLength)
      let finite = unsafe nibble_first_non_finite(piece.baseAddress, piece.count)
      guard finite == piece.count else { throw unsafe NonFinite(index: start + finite, value: piece[finite]) }
      let output = unsafe UnsafeMutableRawBufferPointer(start: to + first * rowBytes, count: rows * rowBytes)
      unsafe row.encode(piece, rows: rows, rowLength: rowLength, importance: importance, into: output)
      if let block = unsafe row.firstOverflow(UnsafeRawBufferPointer(output), halves) {
        let index = unsafe row.largest(piece, ofBlock: block)
        throw unsafe NonFinite(index: start + index, value: piece[index])
      }
    }
  }
}

extension BlockRow {
  fileprivate func encode(
    _ values: UnsafeBufferPointer<Float>, rows: Int, rowLength: Int, importance: UnsafeBufferPointer<Float>?,
    into blocks: UnsafeMutableRawBufferPointer
  ) {
    if let encoder = unsafe encoder {
      let output = unsafe blocks.assumingMemoryBound(to: UInt8.self).baseAddress
      return unsafe encoder(values.baseAddress, rows, rowLength, importance?.baseAddress, output)
    }
    guard let codec = codec as? any BlockEncoder.Type else { preconditionFailure("this kind has no encoder") }
    for block in 0..<values.count / valuesPerBlock {
      let input = unsafe values[block * valuesPerBlock..<(block + 1) * valuesPerBlock]
      let output = unsafe blocks[block * bytesPerBlock..<(block + 1) * bytesPerBlock]
      unsafe codec.encode(
        UnsafeBufferPointer(rebasing: input), into: UnsafeMutableRawBufferPointer(rebasing: output))
    }
  }

  /// The first block with an infinite scale or offset, which lie at `halves`.
  fileprivate func firstOverflow(_ blocks: UnsafeRawBufferPointer, _ halves: [Int]) -> Int? {
    let count = blocks.count / bytesPerBlock
    let start = unsafe blocks.assumingMemoryBound(to: UInt8.self).baseAddress
    let first = halves.map { unsafe nibble_first_overflow(start, count, bytesPerBlock, $0) }.min() ?? count
    return first < count ? first : nil
  }

  /// The index of the largest magnitude.
  fileprivate func largest(_ values: UnsafeBufferPointer<Float>, ofBlock block: Int) -> Int {
    let range = block * valuesPerBlock..<(block + 1) * valuesPerBlock
    return range.max { unsafe values[$0].magnitude < values[$1].magnitude } ?? range.lowerBound
  }
}
