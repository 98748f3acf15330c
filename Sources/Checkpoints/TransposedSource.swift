package import Bytes
import Quantization
package import Tensors

/// A source with some of its matrices transposed: `Conv1D` stores `[in, out]`, the loader quantizes
/// `[out, in]`.
package struct TransposedSource: TensorSource {
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

  package func storedByteCount(of index: Int) -> Int { base.storedByteCount(of: index) }

  package func read(
    _ index: Int, at offset: Int, into destination: UnsafeMutableRawBufferPointer
  ) throws(Failure) {
    guard transposed.contains(index) else { return try unsafe base.read(index, at: offset, into: destination) }
    let info = tensors[index]
    let width = info.type.alignment
    guard info.shape.count == 2, offset % width == 0, destination.count % width == 0 else {
      throw Failure(.internal, "a piece cuts an element in two", tensor: info.name.string)
    }
    if destination.count == 0 { return }
    // Output rows that the piece touches are columns of the stored matrix.
    let rowLength = info.shape[1]
    let storedRowLength = info.shape[0]
    let start = offset / width
    let end = start + destination.count / width
    let rows = start / rowLength..<(end - 1) / rowLength + 1
    let panel = ScratchBuffer(byteCount: rowLength * rows.count * width)
    defer { extendLifetime(panel) }
    for column in 0..<rowLength {
      let row = unsafe UnsafeMutableRawBufferPointer(
        rebasing: panel.mutableBytes[column * rows.count * width..<(column + 1) * rows.count * width])
      try unsafe base.read(index, at: (column * storedRowLength + rows.lowerBound) * width, into: row)
    }
    let turned = unsafe ScratchBuffer(byteCount: panel.bytes.count)
    defer { extendLifetime(turned) }
    unsafe transpose(panel.bytes, rows: rowLength, columns: rows.count, elementBytes: width, into: turned.mutableBytes)
    let first = (start - rows.lowerBound * rowLength) * width
    unsafe destination.copyMemory(
      from: UnsafeRawBufferPointer(rebasing: turned.bytes[first..<first + destination.count]))
  }
}
