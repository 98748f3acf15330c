import Bytes
import Quantization
import Tensors

extension ScaledWeight {
  /// Codes of E2M1, two in a byte, the even one in the low half: [..., out, in / 2], with a scale for a group of a row:
  /// [..., out, in / groupSize].
  ///
  /// - Parameters:
  ///   - name: of the weight.
  ///   - parts: positions of codes, scales and what else belongs to it.
  ///   - suffix: of the scales, for messages.
  init(
    fourBit name: TensorName, parts: [Int], as type: FloatType, _ typeName: String, groupSize: Int,
    factor: ScaleGrid.Factor? = nil, scalesAs code: CodeType = .e8m0, in checkpoint: any StoredTensors
  ) throws(Failure) {
    let packed = checkpoint.tensors[parts[0]]
    let scales = checkpoint.tensors[parts[1]]
    guard packed.shape.count > 1, let bytes = packed.shape.last, packed.type.bitWidth == 8 else {
      throw Failure(
        .malformed, "is \(packed.type.name) of shape \(packed.shape), needed are bytes [rows, columns / 2]")
    }
    let (columns, isTooLong) = bytes.multipliedReportingOverflow(by: 2)
    let (covered, isTooMany) = (scales.shape.last ?? 0).multipliedReportingOverflow(by: groupSize)
    guard let storage = ScaleGrid.Storage(scales.type, bytesAs: code), storage == .codes(code) else {
      throw Failure(.malformed, "has scales in \(scales.type.name), needed are bytes of \(code)")
    }
    guard !isTooLong, !isTooMany, covered == columns, scales.shape.dropLast() == packed.shape.dropLast() else {
      throw Failure(
        .malformed,
        "has codes of shape \(packed.shape) and scales of shape \(scales.shape), needed is a scale for "
          + "\(groupSize) codes, two of which are a byte")
    }
    self.init(
      info: try TensorInfo(name: name, type: type.elementType, shape: packed.shape.dropLast() + [columns]),
      typeName: typeName, parts: parts, codes: .e2m1, rowBytes: bytes,
      scales: ScaleGrid(
        index: parts[1], storage: storage, blockRows: 1, blockColumns: groupSize,
        rows: packed.shape[packed.shape.count - 2], columns: columns / groupSize, factor: factor))
  }
}
