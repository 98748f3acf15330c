import Bytes
import JSON
import Quantization
import Tensors

/// The experts of gpt-oss: `P_blocks`, two E2M1 in a byte, [experts, out, in / 32, 16], and `P_scales`, powers of two,
/// [experts, out, in / 32]. transformers has `P` the other way round, [experts, in, out].
struct MXFP4Layout: PackedLayout {
  private static let blocks = "_blocks"
  private static let scales = "_scales"
  private static let groupSize = 32

  private let type: FloatType
  var name: String { "MXFP4" }

  init?(_ config: JSONValue?, of checkpoint: any StoredTensors) throws(Failure) {
    guard let (method, _) = QuantizationSettings.stated(config), method == "mxfp4" else { return nil }
    type = try QuantizationSettings.weightType(config)
  }

  func weight(_ index: Int, in checkpoint: any StoredTensors) throws(Failure) -> (any PackedWeight)? {
    let blocks = checkpoint.tensors[index]
    guard let name = blocks.name.dropping(suffix: Self.blocks) else { return nil }
    guard let position = checkpoint.index(of: name + Self.scales) else {
      throw Failure(.malformed, "is in MXFP4, but '\(name)\(Self.scales)' is missing")
    }
    guard checkpoint.index(of: name) == nil else { throw Failure(.malformed, "is there beside '\(name)' itself") }
    let scales = checkpoint.tensors[position]
    guard blocks.type == .u8, scales.type == .u8, blocks.shape.count == 4, scales.shape == blocks.shape.dropLast(),
      blocks.shape[3] == Self.groupSize / 2
    else {
      throw Failure(
        .malformed,
        "is \(blocks.type.name) of shape \(blocks.shape) with scales \(scales.type.name) of shape "
          + "\(scales.shape), needed are U8 [experts, rows, groups, \(Self.groupSize / 2)] "
          + "and U8 [experts, rows, groups]"
      )
    }
    let (columns, isTooLong) = blocks.shape[2].multipliedReportingOverflow(by: Self.groupSize)
    guard !isTooLong else { throw Failure(.malformed, "has shape \(blocks.shape), which overflows") }
    return try TransposedWeight(
      ScaledWeight(
        info: TensorInfo(name: name, type: type.elementType, shape: [blocks.shape[0], blocks.shape[1], columns]),
        typeName: "MXFP4", parts: [index, position], codes: .e2m1, rowBytes: columns / 2,
        scales: ScaleGrid(
          index: position, storage: .codes(.e8m0), blockRows: 1, blockColumns: Self.groupSize, rows: blocks.shape[1],
          columns: blocks.shape[2])))
  }

  func remainder(_ index: Int, in checkpoint: any StoredTensors) -> PackedRemainder {
    let info = checkpoint.tensors[index]
    return info.name.hasSuffix(Self.scales) && info.type == .u8 ? .orphan : .plain
  }
}
