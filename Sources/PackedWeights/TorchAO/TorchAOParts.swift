import Bytes
import JSON
import Quantization
import Tensors

/// The tensors of one weight of torchao, and the weight that they are.
struct TorchAOParts {
  private static let known = [
    "Float8Tensor", "Int8Tensor", "IntxUnpackedToInt8Tensor", "Int4Tensor", "MXTensor", "NVFP4Tensor",
  ]

  private let module: TorchAOModule
  private let codes: Int
  private let checkpoint: any StoredTensors

  /// - Parameter codes: position of `qdata`.
  init(_ module: TorchAOModule, _ codes: Int, in checkpoint: any StoredTensors) {
    self.module = module
    self.codes = codes
    self.checkpoint = checkpoint
  }

  private var info: TensorInfo { checkpoint.tensors[codes] }

  private func find(_ part: String) -> Int? { checkpoint.index(of: module.part(part)) }

  private func need(_ part: String) throws(Failure) -> Int {
    guard let index = find(part) else { throw Failure(.malformed, "'\(module.part(part))' is missing beside it") }
    return index
  }

  /// - Parameter byDefault: the dtype where the header says none.
  /// - Throws: `unsupported` for a class that is not known here, or packed for one kind of device.
  func weight(_ byDefault: FloatType) throws(Failure) -> any PackedWeight {
    if find("act_pre_scale") != nil {
      throw Failure(.unsupported, "has an 'act_pre_scale': weights scaled for their inputs are not read")
    }
    if module.data["is_swizzled_scales"]?.bool == true {
      throw Failure(.unsupported, "has scales in the order of tensor cores (is_swizzled_scales), which is not read")
    }
    switch module.kind {
    case "Float8Tensor": return try floats(module.type("dtype") ?? byDefault)
    case "Int8Tensor": return try integers(module.type("dtype") ?? byDefault, bits: 8)
    case "IntxUnpackedToInt8Tensor":
      let target = module.data["target_dtype"]?["_data"]?.string ?? ""
      guard let bits = (1...8).first(where: { target == "int\($0)" }) else {
        throw Failure(.malformed, "is said to be of the target_dtype '\(target)', known are int1 to int8")
      }
      return try integers(module.type("dtype") ?? byDefault, bits: bits)
    case "Int4Tensor":
      return try TorchAOInt4Weight(
        module.name, codes, need("scale"), need("zero_point"), groupSize: module.data["block_size"]?.array?.last?.int,
        in: checkpoint)
    case "MXTensor": return try microscaled(module.type("orig_dtype") ?? byDefault)
    case "NVFP4Tensor": return try nvfp4(module.type("orig_dtype") ?? byDefault)
    case "Int4TilePackedTo4dTensor":
      throw Failure(.unsupported, "is an Int4TilePackedTo4dTensor: tiles for the tensor cores of a GPU are not read")
    case "Int4PlainInt32Tensor":
      throw Failure(.unsupported, "is an Int4PlainInt32Tensor: what an accelerator has packed for itself is not read")
    default:
      throw Failure(
        .unsupported,
        "is a \(module.kind) of torchao, which is not known here; known are "
          + Self.known.joined(separator: ", "))
    }
  }

  // MARK: - The classes

  private func floats(_ type: FloatType) throws(Failure) -> any PackedWeight {
    guard let code = CodeType(info.type) else {
      throw Failure(.malformed, "is \(info.type.name), needed for a Float8Tensor is F8_E4M3 or F8_E5M2")
    }
    let scale = try need("scale")
    return ScaledWeight(
      info: try TensorInfo(name: module.name, type: type.elementType, shape: info.shape),
      typeName: code == .e5m2 ? "FP8-E5M2" : "FP8-E4M3", parts: [codes, scale], codes: code,
      rowBytes: info.shape.last ?? 1, scales: try grid(scale))
  }

  private func integers(_ type: FloatType, bits: Int) throws(Failure) -> any PackedWeight {
    guard info.type == .i8 else {
      throw Failure(.malformed, "is \(info.type.name), needed for an \(module.kind) is I8")
    }
    let (scale, zero) = (try need("scale"), find("zero_point"))
    var weight = ScaledWeight(
      info: try TensorInfo(name: module.name, type: type.elementType, shape: info.shape),
      typeName: "TorchAO-INT\(bits)",
      parts: [codes, scale] + [zero].compactMap(\.self), codes: .int8, rowBytes: info.shape.last ?? 1,
      scales: try grid(scale))
    guard let zero else { return weight }
    let stored = checkpoint.tensors[zero]
    guard FloatType(stored.type) == nil else {
      throw Failure(.unsupported, "has zero points in \(stored.type.name), known here are whole numbers")
    }
    guard stored.type == .i8, stored.elementCount == weight.scales.rows * weight.scales.columns, info.shape.count == 2
    else {
      throw Failure(
        .malformed,
        "'zero_point' is \(stored.type.name) of shape \(stored.shape), needed is an I8 for each scale of a matrix")
    }
    weight.zeros = ZeroPoints(index: zero, storage: .bytes)
    return weight
  }

  /// E4M3, E5M2 or E2M1 with powers of two.
  private func microscaled(_ type: FloatType) throws(Failure) -> any PackedWeight {
    let scale = try need("scale")
    guard [.f8e8m0, .u8].contains(checkpoint.tensors[scale].type) else {
      throw Failure(.malformed, "has scales in \(checkpoint.tensors[scale].type.name), needed are F8_E8M0")
    }
    if info.type == .u8 {
      let element = module.data["elem_dtype"]?["_data"]?.string ?? ""
      guard element.hasPrefix("float4_e2m1"), let size = module.data["block_size"]?.int, size > 0 else {
        throw Failure(.unsupported, "is an MXTensor of '\(element)' in bytes, known here is float4_e2m1fn_x2")
      }
      return try ScaledWeight(
        fourBit: module.name, parts: [codes, scale], as: type, "MXFP4", groupSize: size, in: checkpoint)
    }
    guard let code = CodeType(info.type) else {
      throw Failure(.malformed, "is \(info.type.name), needed for an MXTensor is F8_E4M3, F8_E5M2 or U8")
    }
    return ScaledWeight(
      info: try TensorInfo(name: module.name, type: type.elementType, shape: info.shape), typeName: "MXFP8",
      parts: [codes, scale], codes: code, rowBytes: info.shape.last ?? 1, scales: try grid(scale))
  }

  private func nvfp4(_ type: FloatType) throws(Failure) -> any PackedWeight {
    guard let size = module.data["block_size"]?.int, size > 0 else {
      throw Failure(.malformed, "is an NVFP4Tensor without a 'block_size'")
    }
    let (scale, global) = (try need("scale"), find("per_tensor_scale"))
    if let global {
      let stored = checkpoint.tensors[global]
      guard stored.type == .f32, stored.elementCount == 1 else {
        throw Failure(
          .unsupported, "'per_tensor_scale' is \(stored.type.name) of shape \(stored.shape), known here is one F32")
      }
    }
    return try ScaledWeight(
      fourBit: module.name, parts: [codes, scale] + [global].compactMap(\.self), as: type, "NVFP4", groupSize: size,
      factor: global.map { ScaleGrid.Factor(index: $0, divides: false) }, scalesAs: .e4m3, in: checkpoint)
  }

  /// The scales of a matrix, or of a stack of them: as many for each dimension as divide it.
  private func grid(_ scale: Int) throws(Failure) -> ScaleGrid {
    let (shape, stored) = (info.shape, checkpoint.tensors[scale])
    guard let storage = ScaleGrid.Storage(stored.type), shape.count > 1 else {
      throw Failure(
        .malformed, "is of shape \(shape) with scales in \(stored.type.name), needed are a matrix and F32, F16 or BF16")
    }
    let (height, width) = (shape[shape.count - 2], shape[shape.count - 1])
    if stored.elementCount == 1, shape.count == 2 {
      return ScaleGrid(
        index: scale, storage: storage, blockRows: max(1, height), blockColumns: max(1, width), rows: 1, columns: 1)
    }
    guard stored.shape.count == shape.count, stored.shape.dropLast(2) == shape.dropLast(2),
      case (let rows, let columns) = (stored.shape[shape.count - 2], stored.shape[shape.count - 1]), rows > 0,
      columns > 0,
      height % rows == 0, width % columns == 0, height > 0, width > 0
    else {
      throw Failure(.malformed, "is of shape \(shape) with scales of shape \(stored.shape), which do not divide it")
    }
    return ScaleGrid(
      index: scale, storage: storage, blockRows: height / rows, blockColumns: width / columns, rows: rows,
      columns: columns)
  }
}
