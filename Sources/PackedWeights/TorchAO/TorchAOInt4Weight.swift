import Bytes
import Quantization
import Tensors

/// An `Int4Tensor` of torchao: whole numbers from -8 to 7, two in a byte, the even one in the low half, [out, in / 2],
/// and for each group of a row a scale and the value that 0 stands for, [in / groupSize, out].
///
/// A value is `(code + 8) * scale + (zero - 8 * scale)`, in 32 bits, as torchao has it where it rounds weights by GPTQ:
/// otherwise it leaves the arithmetic to the kernel that multiplies.
struct TorchAOInt4Weight: PackedWeight {
  let info: TensorInfo
  let parts: [Int]
  private let type: FloatType
  private let groupSize: Int
  private let rows: Int
  private let groups: Int

  var typeName: String { "TorchAO-INT4" }
  var scheme: String { typeName.lowercased() }

  /// - Throws: `malformed` where the parts do not fit each other.
  init(
    _ name: TensorName, _ codes: Int, _ scale: Int, _ zero: Int, groupSize: Int?, in checkpoint: any StoredTensors
  ) throws(Failure) {
    let (packed, scales, zeros) = (checkpoint.tensors[codes], checkpoint.tensors[scale], checkpoint.tensors[zero])
    guard packed.shape.count == 2, packed.type.bitWidth == 8, let groupSize, groupSize > 0 else {
      throw Failure(
        .unsupported,
        "is an Int4Tensor in \(packed.type.name) of shape \(packed.shape), known here is a matrix of bytes")
    }
    let (columns, isTooLong) = packed.shape[1].multipliedReportingOverflow(by: 2)
    guard !isTooLong, let type = FloatType(scales.type), zeros.type == scales.type, columns % groupSize == 0,
      scales.shape == [columns / groupSize, packed.shape[0]], zeros.shape == scales.shape
    else {
      throw Failure(
        .malformed,
        "has codes of shape \(packed.shape) in groups of \(groupSize), a scale in \(scales.type.name) of shape "
          + "\(scales.shape) and a zero_point in \(zeros.type.name) of shape \(zeros.shape); needed are "
          + "[rows, columns / 2] and twice [groups, rows] in one type")
    }
    info = try TensorInfo(name: name, type: type.elementType, shape: [packed.shape[0], columns])
    parts = [codes, scale, zero]
    self.type = type
    self.groupSize = groupSize
    rows = packed.shape[0]
    groups = columns / groupSize
  }

  func decode(
    _ elements: Range<Int>, of checkpoint: any StoredTensors, as type: FloatType,
    into destination: inout MutableRawSpan
  ) throws(Failure) {
    guard type == self.type || type == .f32 else {
      throw Failure(.internal, "is not dequantized to \(type.torchName)", tensor: info.name.string)
    }
    if elements.isEmpty { return }
    let width = groups * groupSize
    let range = elements.lowerBound / width..<(elements.upperBound - 1) / width + 1
    let scales = try read(parts[1], range, checkpoint)
    let zeros = try read(parts[2], range, checkpoint)
    let bytes = elements.lowerBound / 2..<(elements.upperBound + 1) / 2
    let stored = try ScratchBuffer(checkpoint, payload, at: bytes.lowerBound, count: bytes.count)
    var numbers = ScratchBuffer(byteCount: 4 * elements.count)
    fill(&numbers, elements, from: stored.bytes, scales.floats, zeros.floats)
    do throws(Overflow) {
      if type == self.type { return try convert(numbers.bytes, from: .f32, to: type, into: &destination) }
      var narrow = ScratchBuffer(byteCount: self.type.byteCount * elements.count)
      var room = narrow.mutableBytes
      try convert(numbers.bytes, from: .f32, to: self.type, into: &room)
      try convert(narrow.bytes, from: self.type, to: type, into: &destination)
    } catch {
      throw Failure(
        .malformed,
        "element \(elements.lowerBound + error.index) is \(error.value), beyond the range of \(self.type.torchName)",
        tensor: info.name.string)
    }
  }

  private func fill(
    _ numbers: inout ScratchBuffer, _ elements: Range<Int>, from stored: RawSpan, _ scales: Span<Float>,
    _ zeros: Span<Float>
  ) {
    var output = numbers.mutableFloats
    let (firstByte, firstGroup) = (elements.lowerBound / 2, elements.lowerBound / (groups * groupSize) * groups)
    var element = elements.lowerBound
    while element < elements.upperBound {
      let end = min(elements.upperBound, (element / groupSize + 1) * groupSize)
      let group = element / groupSize - firstGroup
      let (scale, lowest) = (scales[group], zeros[group] - scales[group] * 8)
      for at in element..<end {
        let byte = stored.load(at: at / 2 - firstByte, as: UInt8.self)
        let code = (at % 2 == 0 ? byte & 15 : byte >> 4) ^ 8
        output[at - elements.lowerBound] = Float(code) * scale + lowest
      }
      element = end
    }
  }

  /// Scales or zero points of some rows, [rows, groups] in 32 bits.
  private func read(_ part: Int, _ range: Range<Int>, _ checkpoint: any StoredTensors) throws(Failure) -> ScratchBuffer
  {
    let stored = try ScratchBuffer(
      turning: range, of: checkpoint, part, rows: rows, columns: groups, width: type.byteCount)
    var result = ScratchBuffer(byteCount: 4 * range.count * groups)
    var room = result.mutableBytes
    do throws(Overflow) { try convert(stored.bytes, from: type, to: .f32, into: &room) } catch {
      throw Failure(.internal, "a scale beyond float32", tensor: checkpoint.tensors[part].name.string)
    }
    return result
  }
}
