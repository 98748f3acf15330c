import Quantization
import Tensors

/// One parameter of the model whose training is planned.
struct FitParameter: Sendable {
  let info: TensorInfo
  /// The parameter's place and use in its layer.
  let role: TrainedParameter
  /// How bitsandbytes holds it in a 4-bit model; nil for what stays as it is.
  let fourBit: (format: FourBitFormat, isNested: Bool)?
  var isTarget = false

  /// Bytes of packed codes: two values a byte, an odd count rounded up.
  var codeBytes: Checked { fourBit.map { Checked($0.format.packedByteCount(info.elementCount)) } ?? 0 }

  /// Bytes of the quant state's tensors, as `bitsandbytes.functional.QuantState` holds them: `code` (16 float32),
  /// and either `absmax` in float32, or `absmax` in 8 bits, `state2.absmax` (float32, one for 256), `state2.code`
  /// (256 float32) and `offset` (one float32).
  var statisticsBytes: Checked {
    guard let fourBit else { return 0 }
    let blocks = fourBit.format.blockCount(info.elementCount)
    guard fourBit.isNested else { return 64 + 4 * Checked(blocks) }
    return 64 + Checked(blocks) + 4 * Checked(DoubleQuantization.blockCount(blocks)) + 1024 + 4
  }
}
