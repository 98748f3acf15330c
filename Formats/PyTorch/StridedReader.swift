import Bytes
import Tensors

/// Reads a tensor whose elements are not in order, or not all there, as if they were.
///
/// What is wanted is cut into boxes, and each box is read in the order of the file: in pieces that cover a part of the
/// storage, as far as what lies between is little, and one by one otherwise. So a transposed matrix takes one read for
/// a few megabytes or for the part of a column that is wanted, never one for an element that has others nearby.
struct StridedReader {
  /// Bytes of the storage that are held at once.
  private static let scratchSize = 4 << 20
  /// What costs as much to read as another call of the system.
  private static let gap = 8 << 10

  private struct Dimension {
    var count: Int
    /// In elements of the storage.
    var stride: Int
    /// In elements of what is written.
    var step = 0
  }

  private let file: InputFile
  private let width: Int
  /// Of the first element in the file.
  private let start: Int
  /// Without those of one element, and those joined that go on where the one before ends.
  private let dimensions: [Dimension]

  init(_ tensor: PyTorchTensor, _ file: InputFile) {
    self.file = file
    width = tensor.width
    start = tensor.start
    var joined: [Dimension] = []
    for (count, stride) in zip(tensor.shape, tensor.strides) where count != 1 {
      if let last = joined.last, last.stride == count * stride {
        joined[joined.count - 1] = Dimension(count: last.count * count, stride: stride)
      } else {
        joined.append(Dimension(count: count, stride: stride))
      }
    }
    dimensions = joined
  }

  /// - Precondition: the bytes lie within the tensor.
  func read(at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    let end = offset + destination.byteCount
    let elements = offset / width..<(end + width - 1) / width
    if offset % width == 0, end % width == 0 { return try read(elements, into: &destination) }
    // Parts of elements at either end.
    var whole = ScratchBuffer(byteCount: elements.count * width)
    var room = whole.mutableBytes
    try read(elements, into: &room)
    let first = offset - elements.lowerBound * width
    destination.copy(from: whole.bytes.extracting(first..<first + destination.byteCount))
  }

  /// Elements by their number, row by row: at most two boxes for each dimension.
  private func read(_ elements: Range<Int>, into destination: inout MutableRawSpan) throws(Failure) {
    var position = elements.lowerBound
    while position < elements.upperBound {
      // The outermost dimension of which whole steps are wanted from here.
      var inner = 1
      var axis = dimensions.count - 1
      while axis > 0 {
        let next = inner * dimensions[axis].count
        if position % next != 0 || elements.upperBound - position < next { break }
        inner = next
        axis -= 1
      }
      let index = position / inner % dimensions[axis].count
      let count = min(dimensions[axis].count - index, (elements.upperBound - position) / inner)
      var box = [Dimension(count: count, stride: dimensions[axis].stride, step: inner)]
      var step = inner
      for dimension in dimensions[(axis + 1)...] {
        step /= dimension.count
        box.append(Dimension(count: dimension.count, stride: dimension.stride, step: step))
      }
      try read(box, from: source(of: position), to: position - elements.lowerBound, into: &destination)
      position += count * inner
    }
  }

  /// Where an element is, counted from the first.
  private func source(of element: Int) -> Int {
    var rest = element
    var source = 0
    for dimension in dimensions.reversed() {
      source += rest % dimension.count * dimension.stride
      rest /= dimension.count
    }
    return source
  }

  // MARK: - A box

  private func read(
    _ box: [Dimension], from source: Int, to target: Int, into destination: inout MutableRawSpan
  ) throws(Failure) {
    let sorted = box.sorted { $0.stride > $1.stride }
    // From the innermost on, what is read in one piece: `span` elements of the storage.
    var span = 1
    var split = sorted.count
    var together = 1
    while split > 0 {
      let dimension = sorted[split - 1]
      guard (dimension.stride - span) * width <= Self.gap else { break }
      let whole = span + (dimension.count - 1) * dimension.stride
      if whole * width > Self.scratchSize {
        together = max(1, 1 + (Self.scratchSize / width - span) / dimension.stride)
        break
      }
      span = whole
      split -= 1
    }
    let outer = sorted[..<split]
    let piece = outer.isEmpty ? span : span + (min(together, outer[split - 1].count) - 1) * outer[split - 1].stride
    var scratch = ScratchBuffer(byteCount: piece * width)
    var index = [Int](repeating: 0, count: split)
    repeat {
      var (from, to) = (source, target)
      for (place, dimension) in zip(index, outer) {
        from += place * dimension.stride
        to += place * dimension.step
      }
      var inner = Array(sorted[split...])
      var length = span
      var count = 1
      if let last = outer.last, let place = index.last {
        count = min(together, last.count - place)
        inner.insert(Dimension(count: count, stride: last.stride, step: last.step), at: 0)
        length += (count - 1) * last.stride
      }
      var room = scratch.mutableBytes
      var part = room.part(0..<length * width)
      try file.read(at: start + from * width, into: &part)
      scatter(inner, scratch.bytes, to: to, into: &destination)
      advance(&index, outer, by: count)
    } while index.contains { $0 != 0 }
  }

  /// To the next piece; back to the beginning after the last.
  private func advance(_ index: inout [Int], _ outer: ArraySlice<Dimension>, by count: Int) {
    var step = count
    for axis in index.indices.reversed() {
      index[axis] += step
      if index[axis] < outer[axis].count { return }
      index[axis] = 0
      step = 1
    }
  }

  // MARK: - From a piece to where it belongs

  private func scatter(
    _ box: [Dimension], _ source: RawSpan, to target: Int, into destination: inout MutableRawSpan
  ) {
    switch width {
    case 1: scatter(UInt8.self, box, source, to: target, into: &destination)
    case 2: scatter(UInt16.self, box, source, to: target, into: &destination)
    case 4: scatter(UInt32.self, box, source, to: target, into: &destination)
    default: scatter(UInt64.self, box, source, to: target, into: &destination)
    }
  }

  /// The two innermost dimensions by squares, so that neither side leaves the cache; those around them one by one.
  private func scatter<T: FixedWidthInteger & BitwiseCopyable>(
    _ type: T.Type, _ box: [Dimension], _ source: RawSpan, to target: Int, into destination: inout MutableRawSpan
  ) {
    let one = Dimension(count: 1, stride: 0)
    let x = box.last ?? one
    let y = box.dropLast().last ?? one
    let outer = box.dropLast(2)
    var index = [Int](repeating: 0, count: outer.count)
    let side = 32
    repeat {
      var (from, to) = (0, target)
      for (place, dimension) in zip(index, outer) {
        from += place * dimension.stride
        to += place * dimension.step
      }
      for top in stride(from: 0, to: y.count, by: side) {
        for left in stride(from: 0, to: x.count, by: side) {
          for row in top..<min(top + side, y.count) {
            for column in left..<min(left + side, x.count) {
              let value = source.load(at: (from + row * y.stride + column * x.stride) * width, as: type)
              destination.storeBytes(
                of: value, toByteOffset: (to + row * y.step + column * x.step) * width, as: type)
            }
          }
        }
      }
      advance(&index, outer, by: 1)
    } while index.contains { $0 != 0 }
  }
}
