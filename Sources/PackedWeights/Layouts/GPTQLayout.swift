import Bytes
import JSON
import Quantization
import Tensors

/// The checkpoints of AutoGPTQ and GPTQModel: `M.qweight`, 32-bit words [in / 32 * bits, out] of which each holds codes
/// of one output, `M.qzeros`, [groups, out / 32 * bits], `M.scales`, [groups, out], and `M.g_idx`, the group of each
/// input.
struct GPTQLayout: PackedLayout {
  static let settingsName = "quantize_config.json"
  private static let widths = [2, 3, 4, 8]

  private let settings: GPTQSettings
  private let type: FloatType
  /// What is added to a zero point: the first version stores them less one.
  private let increment: Int
  /// Whether the groups follow an order of their own, which is stored.
  private let isOrdered: Bool

  var name: String { "GPTQ" }
  var settingsFiles: [String] { [Self.settingsName] }

  init?(_ config: JSONValue?, of checkpoint: any StoredTensors) throws(Failure) {
    guard let (settings, file) = try Self.settings(config, checkpoint) else { return nil }
    let format = settings["checkpoint_format"]?.string ?? settings["format"]?.string ?? "gptq"
    guard ["gptq", "gptq_v2"].contains(format) else {
      throw Failure(
        .unsupported, "GPTQ: the checkpoint_format '\(format)' is not known here; known are gptq, gptq_v2", file: file)
    }
    if let words = settings["pack_dtype"]?.string, words != "int32" {
      throw Failure(.unsupported, "GPTQ: the pack_dtype '\(words)' is not known here; known is int32", file: file)
    }
    self.settings = try GPTQSettings(settings, file: file)
    type = try QuantizationSettings.weightType(config, stored: GPTQParts.scaleType(checkpoint))
    increment = AutoRoundPacking(QuantizationSettings.stated(config))?.increment ?? (format == "gptq" ? 1 : 0)
    isOrdered = settings["desc_act"]?.bool == true
  }

  /// Those of `config.json`, else those of a file of their own.
  private static func settings(
    _ config: JSONValue?, _ checkpoint: any StoredTensors
  ) throws(Failure) -> (JSONValue, file: String)? {
    guard checkpoint.tensors.contains(where: { $0.name.hasSuffix(".qweight") }) else { return nil }
    if let (method, settings) = QuantizationSettings.stated(config) {
      if method != "gptq", AutoRoundPacking((method, settings))?.increment == nil { return nil }
      return (settings, QuantizationSettings.fileName)
    }
    guard let directory = checkpoint.directory, directory.contains(settingsName) else { return nil }
    let file = try directory.open(settingsName)
    let settings = try JSONValue(
      parsing: file.contents(limit: QuantizationSettings.fileLimit), .python, file: settingsName)
    let method = settings["quant_method"]?.string ?? "gptq"
    return method == "gptq" ? (settings, settingsName) : nil
  }

  func weight(_ index: Int, in checkpoint: any StoredTensors) throws(Failure) -> (any PackedWeight)? {
    let packed = checkpoint.tensors[index]
    guard let module = packed.name.dropping(suffix: ".qweight") else { return nil }
    let own = try settings.module(module.string)
    let bits = own.bits
    guard Self.widths.contains(bits) else {
      throw Failure(.unsupported, "has codes of \(bits) bits in GPTQ, known here are 2, 3, 4, 8")
    }
    let parts = try GPTQParts(module, index, in: checkpoint)
    let (stored, outputs) = (packed.shape[0], packed.shape[1])
    let (wide, isTooLong) = stored.multipliedReportingOverflow(by: 32)
    guard !isTooLong, wide % bits == 0 else {
      throw Failure(.malformed, "has \(stored) words in a column, which are no codes of \(bits) bits")
    }
    let inputs = wide / bits
    let size = own.groupSize == -1 ? max(1, inputs) : own.groupSize
    let groups = inputs / size + (inputs % size > 0 ? 1 : 0)
    let zeros = (outputs.multipliedReportingOverflow(by: bits))
    let needed = zeros.partialValue / 32 + (zeros.partialValue % 32 > 0 ? 1 : 0)
    guard !zeros.overflow else { throw Failure(.malformed, "has shape \(packed.shape), which overflows") }
    try parts.check(scales: [groups, outputs], zeros: [groups, needed])
    var weight = ScaledWeight(
      info: try TensorInfo(name: module + ".weight", type: type.elementType, shape: [outputs, inputs]),
      typeName: "GPTQ-Q\(bits)", parts: parts.all, codes: .unsigned(bits: bits), rowBytes: 4 * stored,
      arrangement: .turnedWords, scales: parts.grid(groupSize: size, rows: outputs, columns: groups))
    weight.zeros = ZeroPoints(index: parts.zeros, storage: .words(bits: bits), increment: increment)
    if let order = parts.order {
      let info = checkpoint.tensors[order]
      guard info.type == .i32, info.shape == [inputs] else {
        throw Failure(
          .malformed, "'.g_idx' is \(info.type.name) of shape \(info.shape), needed is I32 of shape [\(inputs)]")
      }
      weight.groups = ColumnGroups(index: order, count: groups)
    } else if isOrdered, groups > 1 {
      throw Failure(.malformed, "'.g_idx' is missing beside it, which 'desc_act' says has the order of its inputs")
    }
    return weight
  }

  func remainder(_ index: Int, in checkpoint: any StoredTensors) -> PackedRemainder {
    GPTQParts.remainder(checkpoint.tensors[index])
  }
}

/// What GPTQ and AWQ store of a module.
struct GPTQParts {
  private let codes: Int
  private let scales: Int
  let zeros: Int
  let order: Int?
  private let checkpoint: any StoredTensors

  /// - Throws: `malformed` where a part is missing, or the codes are no matrix of words.
  init(_ module: TensorName, _ codes: Int, in checkpoint: any StoredTensors) throws(Failure) {
    func need(_ suffix: String) throws(Failure) -> Int {
      guard let index = checkpoint.index(of: module + suffix) else {
        throw Failure(.malformed, "'\(suffix)' is missing beside it")
      }
      return index
    }
    let info = checkpoint.tensors[codes]
    guard info.type == .i32, info.shape.count == 2 else {
      throw Failure(.malformed, "is \(info.type.name) of shape \(info.shape), needed is a matrix of I32")
    }
    guard checkpoint.index(of: module + ".weight") == nil else {
      throw Failure(.malformed, "is there beside '\(module).weight'")
    }
    self.codes = codes
    scales = try need(".scales")
    zeros = try need(".qzeros")
    order = checkpoint.index(of: module + ".g_idx")
    self.checkpoint = checkpoint
  }

  var all: [Int] { [codes, scales, zeros] + [order].compactMap(\.self) }

  func check(scales shape: [Int], zeros zeroShape: [Int]) throws(Failure) {
    let (scaleInfo, zeroInfo) = (checkpoint.tensors[scales], checkpoint.tensors[zeros])
    guard FloatType(scaleInfo.type) != nil, scaleInfo.shape == shape else {
      throw Failure(
        .malformed,
        "'.scales' is \(scaleInfo.type.name) of shape \(scaleInfo.shape), needed is F16, BF16 or F32 of shape "
          + "\(shape)")
    }
    guard zeroInfo.type == .i32, zeroInfo.shape == zeroShape else {
      throw Failure(
        .malformed, "'.qzeros' is \(zeroInfo.type.name) of shape \(zeroInfo.shape), needed is I32 of shape \(zeroShape)"
      )
    }
  }

  func grid(groupSize: Int, rows: Int, columns: Int) -> ScaleGrid {
    var grid = ScaleGrid(
      index: scales, storage: .floats(FloatType(checkpoint.tensors[scales].type) ?? .f16), blockRows: 1,
      blockColumns: groupSize, rows: rows, columns: columns)
    grid.isTurned = true
    return grid
  }

  /// The 16 bits that scales are stored in, which is what the model was in.
  static func scaleType(_ checkpoint: any StoredTensors) -> FloatType {
    checkpoint.tensors.contains { $0.type == .f16 && $0.name.hasSuffix(".scales") } ? .f16 : .bf16
  }

  static func remainder(_ info: TensorInfo) -> PackedRemainder {
    [".scales", ".qzeros", ".g_idx"].contains { info.name.hasSuffix($0) } ? .orphan : .plain
  }
}
