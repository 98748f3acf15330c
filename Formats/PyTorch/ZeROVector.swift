import Bytes
import Tensors

/// A vector of elements that lies in several, one behind the other.
struct ZeROVector {
  private struct Segment {
    let file: Int
    let view: PyTorchTensor
    let start: Int

    var end: Int { start + view.info.elementCount }
  }

  private var segments: [Segment] = []

  /// Of all segments; no more than the bytes that files can have.
  private(set) var count = 0

  /// - Parameter file: position among the checkpoint's files.
  mutating func append(_ view: PyTorchTensor, file: Int) throws(Failure) {
    let (end, overflowed) = count.addingReportingOverflow(view.info.elementCount)
    guard !overflowed else { throw Failure(.malformed, "has more elements than can be counted") }
    segments.append(Segment(file: file, view: view, start: count))
    count = end
  }

  /// Where a range of it lies.
  ///
  /// - Parameter offset: where the range begins in the tensor that it is of.
  func parts(_ range: Range<Int>, at offset: Int) -> [AssembledTensor.Part] {
    // The first segment that ends behind the beginning.
    let first = segments.indices.partition { segments[$0].end <= range.lowerBound }
    var parts: [AssembledTensor.Part] = []
    for segment in segments[first...] {
      if segment.start >= range.upperBound { break }
      let common = range.clamped(to: segment.start..<segment.end)
      if common.isEmpty { continue }
      parts.append(
        .init(
          file: segment.file, view: segment.view, first: common.lowerBound - segment.start,
          offsets: [offset + common.lowerBound - range.lowerBound], sizes: [common.count]))
    }
    return parts
  }
}
