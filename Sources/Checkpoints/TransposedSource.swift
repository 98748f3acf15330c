package import Bytes
import Quantization
package import Tensors

/// A source with some of its matrices transposed: `Conv1D` stores `[in, out]`, the loader quantizes
/// `[out, in]`.
package struct TransposedSource: WrappingSource {
  package let base: any TensorSource
  package let tensors: [TensorInfo]
  private let transposed: Set<Int>

  /// - Parameter matrices: positions of two-dimensional tensors.
  package init(_ base: any TensorSource, _ matrices: Set<Int>) throws(Failure) {
    self.base = base
    transposed = matrices
    var tensors = base.tensors
    for index in matrices {
      let info = tensors[index]
      tensors[index] = try TensorInfo(name: info.name, type: info.type, shape: info.shape.reversed())
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
    guard info.shape.count == 2, offset % width == 0, destination.byteCount % width == 0 else {
      throw Failure(.internal, "a piece cuts an element in two", tensor: info.name.string)
    }
    if destination.byteCount == 0 { return }
    // Output rows that the piece touches are columns of the stored matrix.
    let rowLength = info.shape[1]
    let storedRowLength = info.shape[0]
    let start = offset / width
    let end = start + destination.byteCount / width
    let rows = start / rowLength..<(end - 1) / rowLength + 1
    var panel = ScratchBuffer(byteCount: rowLength * rows.count * width)
    var room = panel.mutableBytes
    for column in 0..<rowLength {
      var row = room.part(column * rows.count * width..<(column + 1) * rows.count * width)
      try base.read(index, at: (column * storedRowLength + rows.lowerBound) * width, into: &row)
    }
    var turned = ScratchBuffer(byteCount: panel.bytes.byteCount)
    var output = turned.mutableBytes
    transpose(panel.bytes, rows: rowLength, columns: rows.count, elementBytes: width, into: &output)
    let first = (start - rows.lowerBound * rowLength) * width
    destination.copy(from: turned.bytes.extracting(first..<first + destination.byteCount))
  }
}
