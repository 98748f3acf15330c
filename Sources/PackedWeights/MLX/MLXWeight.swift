package import Bytes
package import Quantization
package import Tensors

/// A weight in MLX's groups, its parts found and checked against each other.
package struct MLXWeight: PackedWeight {
  /// Ends of the names of codes, and of what lies beside them.
  package static let suffix = ".weight"
  package static let scales = ".scales"
  package static let biases = ".biases"
  /// Codes are stored in words of 32 bits.
  package static let wordBits = 32

  /// Name, shape and the dtype of its scales, to which MLX dequantizes it; for MXFP4 it is bfloat16.
  package let info: TensorInfo
  let format: GroupFormat

  /// Positions among the stored tensors.
  private let codes: Int
  private let scales: Int
  private let biases: Int?
  private let type: FloatType

  package var parts: [Int] { [codes, scales] + [biases].compactMap(\.self) }
  package var typeName: String { format.typeName }
  /// The scheme's name on the command line.
  package var scheme: String { typeName.lowercased() }

  /// - Parameter codes: position of the tensor that has the weight's name.
  /// - Throws: `malformed` when a part is missing or does not fit the others.
  init(_ codes: Int, _ format: GroupFormat, in checkpoint: any StoredTensors) throws(Failure) {
    let stored = checkpoint.tensors
    let packed = stored[codes]
    do throws(Failure) {
      guard packed.type == .u32, packed.shape.count > 1, let words = packed.shape.last else {
        throw Failure(
          .malformed, "has scales beside it, but is \(packed.type.name) of shape \(packed.shape), no U32 codes of rows")
      }
      let module = packed.name.dropping(suffix: Self.suffix) ?? packed.name
      guard let scales = checkpoint.index(of: module + Self.scales) else {
        throw Failure(.malformed, "is in groups, but '\(Self.scales)' is missing beside it")
      }
      let scaleInfo = stored[scales]
      let isAffine = format.mode == .affine
      guard let type = isAffine ? FloatType(scaleInfo.type) : scaleInfo.type == .u8 ? .bf16 : nil else {
        throw Failure(
          .malformed,
          "'\(Self.scales)' is \(scaleInfo.type.name), allowed is "
            + (isAffine ? "BF16, F16, F32" : "U8"))
      }
      guard let groups = scaleInfo.shape.last, scaleInfo.shape.dropLast() == packed.shape.dropLast() else {
        throw Failure(
          .malformed, "'\(Self.scales)' has shape \(scaleInfo.shape), its codes have \(packed.shape)")
      }
      let (columns, isTooLong) = groups.multipliedReportingOverflow(by: format.groupSize)
      let (bits, isTooWide) = columns.multipliedReportingOverflow(by: format.bits)
      let (room, isTooGreat) = words.multipliedReportingOverflow(by: Self.wordBits)
      guard !isTooLong, !isTooWide, !isTooGreat, bits == room else {
        throw Failure(
          .malformed,
          "has rows of \(words) words of codes and \(groups) scales, which config.json does not agree with: "
            + "\(format.bits) bits in groups of \(format.groupSize)")
      }
      let biases = checkpoint.index(of: module + Self.biases)
      if let biases, isAffine {
        guard stored[biases].type == scaleInfo.type, stored[biases].shape == scaleInfo.shape else {
          throw Failure(
            .malformed,
            "'\(Self.biases)' is \(stored[biases].type.name) of shape \(stored[biases].shape), "
              + "needed is what '\(Self.scales)' is: \(scaleInfo.type.name) of shape \(scaleInfo.shape)")
        }
      } else if isAffine != (biases != nil) {
        throw Failure(
          .malformed,
          "is in groups, but '\(Self.biases)' is "
            + (isAffine ? "missing beside it" : "there, which MXFP4 does not have"))
      }
      info = try TensorInfo(name: packed.name, type: type.elementType, shape: packed.shape.dropLast() + [columns])
      self.format = format
      self.codes = codes
      self.scales = scales
      self.biases = biases
      self.type = type
    } catch { throw error.located(file: checkpoint.location(of: codes).file, tensor: packed.name.string) }
  }

  package func decode(
    _ elements: Range<Int>, of checkpoint: any StoredTensors, as type: FloatType,
    into destination: inout MutableRawSpan
  ) throws(Failure) {
    guard type == self.type || type == .f32 else {
      throw Failure(.internal, "is not dequantized to \(type.torchName)", tensor: info.name.string)
    }
    // Rows are whole groups, so that groups follow each other through the whole weight.
    let size = format.groupSize
    let start = elements.lowerBound / size * size
    let count = (elements.upperBound + size - 1) / size * size - start
    let packed = try ScratchBuffer(
      checkpoint, codes, at: format.packedByteCount(start), count: format.packedByteCount(count))
    let scales = try ScratchBuffer(
      checkpoint, scales, at: format.scaleByteCount(start, as: self.type),
      count: format.scaleByteCount(count, as: self.type))
    var offsets = ScratchBuffer(byteCount: format.biasByteCount(count, as: self.type))
    if let biases {
      var room = offsets.mutableBytes
      try checkpoint.read(biases, at: format.biasByteCount(start, as: self.type), into: &room)
    }
    if count == elements.count {
      return format.dequantize(
        packed: packed.bytes, scales: scales.bytes, biases: offsets.bytes, scaleType: self.type, into: &destination,
        as: type)
    }
    var whole = ScratchBuffer(byteCount: count * type.byteCount)
    var values = whole.mutableBytes
    format.dequantize(
      packed: packed.bytes, scales: scales.bytes, biases: offsets.bytes, scaleType: self.type, into: &values, as: type)
    let first = (elements.lowerBound - start) * type.byteCount
    destination.copy(from: whole.bytes.extracting(first..<first + elements.count * type.byteCount))
  }
}

extension GroupFormat {
  /// The type's name in lists of tensors.
  package var typeName: String { mode == .affine ? "MLX-Q\(bits)" : "MLX-MXFP4" }
}
