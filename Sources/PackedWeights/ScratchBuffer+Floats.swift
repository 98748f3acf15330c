package import Bytes
import Quantization
package import Tensors

extension ScratchBuffer {
  /// Some elements of a tensor of real numbers, in 32 bits.
  ///
  /// - Throws: what reading throws; `malformed` for a value beyond float32, naming tensor and index.
  package static func floats(
    _ source: any TensorSource, _ index: Int, _ elements: Range<Int>
  ) throws(Failure) -> ScratchBuffer {
    let info = source.tensors[index]
    let width = info.type.bitWidth / 8
    return try floats(
      ScratchBuffer(source, index, at: elements.lowerBound * width, count: elements.count * width), info,
      from: elements.lowerBound)
  }

  private static func floats(
    _ values: consuming ScratchBuffer, _ info: TensorInfo, from start: Int
  ) throws(Failure) -> ScratchBuffer {
    if info.type == .f32 { return values }
    let count = values.bytes.byteCount / (info.type.bitWidth / 8)
    var result = ScratchBuffer(byteCount: 4 * count)
    var room = result.mutableBytes
    do throws(Overflow) {
      if let type = FloatType(info.type) {
        try convert(values.bytes, from: type, to: .f32, into: &room)
      } else {
        try narrow(values.bytes, to: .f32, into: &room)
      }
    } catch {
      throw Failure(
        .malformed, "element \(start + error.index) is \(error.value), beyond float32", tensor: info.name.string)
    }
    return result
  }
}
