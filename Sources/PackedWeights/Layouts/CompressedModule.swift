import Bytes
import Quantization
import Tensors

/// The tensors of one quantized module of compressed-tensors, and the weight that they are.
struct CompressedModule {
  private let name: TensorName
  private let codes: Int
  private let checkpoint: any StoredTensors
  let scale: Int?
  private let shape: Int?
  private let zeroPoint: Int?
  private let order: Int?
  private let globalScale: Int?

  typealias Weights = CompressedTensorsSettings.Weights

  /// - Parameter codes: position of the tensor of codes.
  init(_ module: TensorName, _ codes: Int, in checkpoint: any StoredTensors) {
    name = module + ".weight"
    self.codes = codes
    self.checkpoint = checkpoint
    func part(_ suffix: String) -> Int? { checkpoint.index(of: module + ".weight_\(suffix)") }
    scale = part("scale")
    shape = part("shape")
    zeroPoint = part("zero_point")
    order = part("g_idx")
    globalScale = part("global_scale")
  }

  private var info: TensorInfo { checkpoint.tensors[codes] }

  private var parts: [Int] { [codes] + [scale, shape, zeroPoint, order, globalScale].compactMap(\.self) }

  private func need(_ index: Int?, _ suffix: String) throws(Failure) -> Int {
    guard let index else { throw Failure(.malformed, "'.weight_\(suffix)' is missing beside it") }
    return index
  }

  // MARK: - The three kinds

  /// Whole numbers of 1 to 8 bits: a stream of bits for each row, in words of 32.
  func packedIntegers(_ weights: Weights, _ type: FloatType) throws(Failure) -> any PackedWeight {
    guard !weights.isFloat else {
      throw Failure(
        .malformed, "is packed in I32, but \(QuantizationSettings.fileName) says that it is of type 'float'")
    }
    let bits = weights.bits
    let (rows, columns) = try logicalShape()
    let words = info.shape[1]
    let dense = (columns.multipliedReportingOverflow(by: bits))
    let padded = columns / (32 / bits) + (columns % (32 / bits) > 0 ? 1 : 0)
    let isDense = !dense.overflow && words == dense.partialValue / 32 + (dense.partialValue % 32 > 0 ? 1 : 0)
    guard isDense || words == padded else {
      throw Failure(
        .malformed, "has \(words) words in a row, which are not \(columns) codes of \(bits) bits")
    }
    // Releases before 2026 let no code straddle two words.
    guard isDense || weights.isSymmetric else {
      throw Failure(.unsupported, "has zero points, and \(32 / bits) codes of \(bits) bits in a word")
    }
    var weight = ScaledWeight(
      info: try TensorInfo(name: name, type: type.elementType, shape: [rows, columns]), typeName: typeName(weights),
      parts: parts, codes: weights.isSymmetric ? .offset(bits: isDense ? bits : 8) : .unsigned(bits: bits),
      rowBytes: isDense ? 4 * words : columns, arrangement: isDense ? .rows : .paddedWords(bits: bits),
      scales: try grid([rows, columns], weights, type))
    if weights.isSymmetric {
      guard zeroPoint == nil else {
        throw Failure(
          .malformed, "has '.weight_zero_point', but \(QuantizationSettings.fileName) says that it is symmetric")
      }
    } else {
      weight.zeros = try packedZeros(bits, weight.scales)
    }
    weight.groups = try columnGroups(columns, weights, weight.scales)
    return weight
  }

  /// Numbers of E2M1, two in a byte, with scales of E4M3 under one for all, or powers of two.
  func fourBitFloats(_ weights: Weights, _ type: FloatType) throws(Failure) -> any PackedWeight {
    guard weights.isFloat, weights.bits == 4, let size = weights.block?.columns, weights.block?.rows == 1 else {
      throw Failure(
        .malformed, "is packed in U8, but \(QuantizationSettings.fileName) says that it is no group of 4-bit floats")
    }
    let scale = try need(scale, "scale")
    guard weights.strategy == .tensorGroup else {
      return try ScaledWeight(fourBit: name, parts: parts, as: type, "MXFP4", groupSize: size, in: checkpoint)
    }
    let global = try need(globalScale, "global_scale")
    let stored = checkpoint.tensors[global]
    guard stored.type == .f32, stored.elementCount == 1 else {
      throw Failure(
        .malformed, "'.weight_global_scale' is \(stored.type.name) of shape \(stored.shape), needed is one F32")
    }
    guard checkpoint.tensors[scale].type == .f8e4m3 else {
      throw Failure(
        .malformed,
        "'.weight_scale' is \(checkpoint.tensors[scale].type.name), needed beside '.weight_global_scale' "
          + "is F8_E4M3")
    }
    return try ScaledWeight(
      fourBit: name, parts: parts, as: type, "NVFP4", groupSize: size,
      factor: ScaleGrid.Factor(index: global, divides: true), scalesAs: .e4m3, in: checkpoint)
  }

  /// FP8, or whole numbers of 8 bits.
  func bytes(_ weights: Weights, _ type: FloatType) throws(Failure) -> any PackedWeight {
    let code = CodeType(info.type) ?? .int8
    // Whole numbers of fewer bits have a byte each where activations are quantized too.
    guard weights.bits == 8 || code == .int8, weights.isFloat == (code != .int8) else {
      throw Failure(
        .malformed,
        "is \(info.type.name), but \(QuantizationSettings.fileName) says \(weights.bits) bits of type "
          + "'\(weights.isFloat ? "float" : "int")'")
    }
    guard info.shape.count > 1 else { throw Failure(.malformed, "has shape \(info.shape), which is no matrix") }
    var weight = ScaledWeight(
      info: try TensorInfo(name: name, type: type.elementType, shape: info.shape), typeName: typeName(weights),
      parts: parts, codes: code, rowBytes: info.shape[info.shape.count - 1],
      scales: try grid(info.shape, weights, type))
    if let zeroPoint {
      let stored = checkpoint.tensors[zeroPoint]
      let grid = weight.scales
      guard code == .int8, stored.type == .i8, stored.elementCount == grid.rows * grid.columns, info.shape.count == 2
      else {
        throw Failure(
          .malformed,
          "'.weight_zero_point' is \(stored.type.name) of shape \(stored.shape), needed is an I8 for each scale")
      }
      weight.zeros = ZeroPoints(index: zeroPoint, storage: .bytes)
    } else if !weights.isSymmetric {
      _ = try need(zeroPoint, "zero_point")
    }
    weight.groups = try columnGroups(info.shape[info.shape.count - 1], weights, weight.scales)
    return weight
  }

  // MARK: - Parts

  private func typeName(_ weights: Weights) -> String {
    switch (weights.isFloat, info.type) {
    case (false, _): "W\(weights.bits)A\(weights.activationBits)"
    case (true, .f8e5m2): "FP8-E5M2"
    case (true, _): weights.block?.columns == 32 && weights.block?.rows == 1 ? "MXFP8" : "FP8-E4M3"
    }
  }

  /// Rows and columns as `weight_shape` says them.
  private func logicalShape() throws(Failure) -> (rows: Int, columns: Int) {
    let shape = try need(shape, "shape")
    let stored = checkpoint.tensors[shape]
    guard info.shape.count == 2, [.i64, .i32].contains(stored.type), stored.shape == [2] else {
      throw Failure(
        .malformed,
        "is of shape \(info.shape), and '.weight_shape' \(stored.type.name) of shape \(stored.shape); "
          + "needed are [rows, words] and I64 [2]")
    }
    let contents = try ScratchBuffer(checkpoint, shape, at: 0, count: stored.byteCount)
    let numbers = (0..<2).map { at in
      stored.type == .i64
        ? Int(contents.bytes.load(at: 8 * at, as: Int64.self)) : Int(contents.bytes.load(at: 4 * at, as: Int32.self))
    }
    guard numbers[0] == info.shape[0], numbers[1] >= 0 else {
      throw Failure(.malformed, "has \(info.shape[0]) rows, and '.weight_shape' says \(numbers)")
    }
    return (numbers[0], numbers[1])
  }

  private func grid(_ shape: [Int], _ weights: Weights, _ type: FloatType) throws(Failure) -> ScaleGrid {
    let scale = try need(scale, "scale")
    let stored = checkpoint.tensors[scale]
    guard let storage = ScaleGrid.Storage(stored.type) else {
      throw Failure(.malformed, "'.weight_scale' is \(stored.type.name), needed is BF16, F16, F32 or U8")
    }
    var grid = try ScaleShape(shape, stored.shape).grid(
      scale, storage, block: weights.block, isBlockStated: true, suffix: ".weight_scale")
    // A loader has them in the type of the model before it computes anything.
    grid.roundedTo = type
    return grid
  }

  private func packedZeros(_ bits: Int, _ grid: ScaleGrid) throws(Failure) -> ZeroPoints {
    let index = try need(zeroPoint, "zero_point")
    let stored = checkpoint.tensors[index]
    let (stream, isTooLong) = grid.rows.multipliedReportingOverflow(by: bits)
    guard !isTooLong else { throw Failure(.malformed, "has \(grid.rows) rows, which overflows") }
    let needed = [stream / 32 + (stream % 32 > 0 ? 1 : 0), grid.columns]
    guard stored.type == .i32, stored.shape == needed else {
      throw Failure(
        .malformed,
        "'.weight_zero_point' is \(stored.type.name) of shape \(stored.shape), needed is I32 of shape \(needed)")
    }
    return ZeroPoints(index: index, storage: .turnedWords(bits: bits))
  }

  private func columnGroups(_ columns: Int, _ weights: Weights, _ grid: ScaleGrid) throws(Failure) -> ColumnGroups? {
    guard weights.isOrdered else { return nil }
    let index = try need(order, "g_idx")
    let stored = checkpoint.tensors[index]
    guard stored.type == .i32, stored.shape == [columns] else {
      throw Failure(
        .malformed,
        "'.weight_g_idx' is \(stored.type.name) of shape \(stored.shape), needed is I32 of shape [\(columns)]")
    }
    return ColumnGroups(index: index, count: grid.columns)
  }
}
