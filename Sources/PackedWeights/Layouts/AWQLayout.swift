import Bytes
import JSON
import Quantization
import Tensors

/// The checkpoints of AutoAWQ in its version "gemm": `M.qweight`, 32-bit words [in, out / 8] of which each holds codes
/// of 8 outputs, `M.qzeros`, [groups, out / 8], `M.scales`, [groups, out].
struct AWQLayout: PackedLayout {
  private let settings: GPTQSettings
  private let type: FloatType

  var name: String { "AWQ" }

  init?(_ config: JSONValue?, of checkpoint: any StoredTensors) throws(Failure) {
    guard let (method, settings) = QuantizationSettings.stated(config),
      checkpoint.tensors.contains(where: { $0.name.hasSuffix(".qweight") })
    else { return nil }
    let isAutoRound = AutoRoundPacking((method, settings)) == .awq
    guard method == "awq" || isAutoRound else { return nil }
    func refusal(_ text: String) -> Failure {
      Failure(.unsupported, "AWQ: \(text)", file: QuantizationSettings.fileName)
    }
    let version = settings["version"]?.string ?? "gemm"
    guard isAutoRound || version.lowercased() == "gemm" else {
      throw refusal("the version '\(version)' is not known here; known is gemm")
    }
    guard isAutoRound || settings["zero_point"]?.bool != false else {
      throw refusal("'zero_point' is false, known here is true")
    }
    self.settings = try GPTQSettings(settings, file: QuantizationSettings.fileName)
    type = try QuantizationSettings.weightType(config, stored: GPTQParts.scaleType(checkpoint))
  }

  func weight(_ index: Int, in checkpoint: any StoredTensors) throws(Failure) -> (any PackedWeight)? {
    let packed = checkpoint.tensors[index]
    guard let module = packed.name.dropping(suffix: ".qweight") else { return nil }
    let own = try settings.module(module.string)
    guard own.bits == 4 else {
      throw Failure(.unsupported, "has codes of \(own.bits) bits in AWQ, known here are 4")
    }
    let parts = try GPTQParts(module, index, in: checkpoint)
    let inputs = packed.shape[0]
    let (outputs, isTooWide) = packed.shape[1].multipliedReportingOverflow(by: 8)
    guard !isTooWide else { throw Failure(.malformed, "has shape \(packed.shape), which overflows") }
    let size = own.groupSize == -1 ? max(1, inputs) : own.groupSize
    let groups = inputs / size + (inputs % size > 0 ? 1 : 0)
    try parts.check(scales: [groups, outputs], zeros: [groups, packed.shape[1]])
    var weight = ScaledWeight(
      info: try TensorInfo(name: module + ".weight", type: type.elementType, shape: [outputs, inputs]),
      typeName: "AWQ-Q4", parts: parts.all, codes: .unsigned(bits: 8), rowBytes: inputs,
      arrangement: .interleaved, scales: parts.grid(groupSize: size, rows: outputs, columns: groups))
    weight.zeros = ZeroPoints(index: parts.zeros, storage: .interleaved)
    return weight
  }

  func remainder(_ index: Int, in checkpoint: any StoredTensors) -> PackedRemainder {
    GPTQParts.remainder(checkpoint.tensors[index])
  }
}

/// The order of AWQ: a word holds 8 columns, of which the even ones lie in its lower half.
enum AWQOrder {
  /// The lowest bit of a column's field.
  static func shift(_ column: Int) -> UInt32 {
    let place = column % 2 == 0 ? column % 8 / 2 : 4 + column % 8 / 2
    return UInt32(4 * place)
  }
}
