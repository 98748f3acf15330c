package import Bytes
import Quantization
package import Tensors

/// A source with some of its matrices transposed: `Conv1D` stores `[in, out]`, the loader quantizes
/// `[out, in]`. Of a stack of matrices each is transposed.
package struct TransposedSource: WrappingSource {
  package let base: any TensorSource
  package let tensors: [TensorInfo]
  private let transposed: Set<Int>

  /// - Parameter matrices: positions of tensors of two or more dimensions, the last two of which change places.
  package init(_ base: any TensorSource, _ matrices: Set<Int>) throws(Failure) {
    self.base = base
    transposed = matrices
    var tensors = base.tensors
    for index in matrices {
      let info = tensors[index]
      let shape = info.shape.dropLast(2) + info.shape.suffix(2).reversed()
      tensors[index] = try TensorInfo(name: info.name, type: info.type, shape: Array(shape))
    }
    self.tensors = tensors
  }

  package func changes(_ index: Int) -> Bool { transposed.contains(index) }

  package func read(
    _ index: Int, at offset: Int, into destination: inout MutableRawSpan
  ) throws(Failure) {
    guard changes(index) else { return try base.read(index, at: offset, into: &destination) }
    let info = tensors[index]
    let width = info.type.alignment
    guard info.shape.count >= 2, offset % width == 0, destination.byteCount % width == 0 else {
      throw Failure(.internal, "a piece cuts an element in two", tensor: info.name.string)
    }
    if destination.byteCount == 0 { return }
    let start = offset / width
    let end = start + destination.byteCount / width
    let size = info.shape[info.shape.count - 2] * info.shape[info.shape.count - 1]
    var done = start
    while done < end {
      let matrix = done / size
      let next = min(end, (matrix + 1) * size)
      var piece = destination.part((done - start) * width..<(next - start) * width)
      try turn(index, matrix, done - matrix * size..<next - matrix * size, into: &piece)
      done = next
    }
  }

  /// Bytes that are transposed at once.
  private static let bandBytes = 1 << 19

  /// Reads elements of one matrix of a tensor, counted from its start.
  private func turn(
    _ index: Int, _ matrix: Int, _ elements: Range<Int>, into destination: inout MutableRawSpan
  ) throws(Failure) {
    let info = tensors[index]
    let width = info.type.alignment
    // Output rows that the piece touches are columns of the stored matrix.
    let rowLength = info.shape[info.shape.count - 1]
    let storedRowLength = info.shape[info.shape.count - 2]
    let rows = elements.lowerBound / rowLength..<(elements.upperBound - 1) / rowLength + 1
    let step = max(1, min(rowLength, Self.bandBytes / (rows.count * width)))
    for start in stride(from: 0, to: rowLength, by: step) {
      let band = start..<min(start + step, rowLength)
      let stored = (matrix * rowLength + band.lowerBound) * storedRowLength + rows.lowerBound
      let strip = rows.count * width
      var panel = ScratchBuffer(byteCount: band.count * strip)
      var room = panel.mutableBytes
      if rows.count == storedRowLength {
        try base.read(index, at: stored * width, into: &room)
      } else {
        for line in 0..<band.count {
          var row = room.part(line * strip..<(line + 1) * strip)
          try base.read(index, at: (stored + line * storedRowLength) * width, into: &row)
        }
      }
      var turned = ScratchBuffer(byteCount: panel.bytes.byteCount)
      var output = turned.mutableBytes
      transpose(panel.bytes, rows: band.count, columns: rows.count, elementBytes: width, into: &output)
      for row in rows {
        let whole = row * rowLength + band.lowerBound..<row * rowLength + band.upperBound
        let part = whole.clamped(to: elements)
        if part.isEmpty { continue }
        let from = ((row - rows.lowerBound) * band.count + part.lowerBound - whole.lowerBound) * width
        let to = (part.lowerBound - elements.lowerBound) * width
        var place = destination.part(to..<to + part.count * width)
        place.copy(from: turned.bytes.extracting(from..<from + part.count * width))
      }
    }
  }
}
