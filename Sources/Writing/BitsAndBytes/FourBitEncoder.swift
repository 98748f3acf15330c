package import Bytes
import Checkpoints
import Quantization
package import Tensors

/// Stores a weight in 4 bits as bitsandbytes does: codes, and the statistics of their blocks behind them.
package struct FourBitEncoder: TensorEncoder {
  package let scheme: FourBitScheme

  package init(scheme: FourBitScheme) {
    self.scheme = scheme
  }

  package var schemeName: String? { scheme.format.code.rawValue.uppercased() }

  package func outputs(for weight: TensorInfo) throws(Failure) -> [StoredTensor] {
    try scheme.outputs(for: weight, type: type(of: weight)).map(StoredTensor.init)
  }

  package func makeState(for weight: TensorInfo) -> (any Sendable)? {
    BlockMaxima(count: scheme.format.blockCount(weight.elementCount))
  }

  private func type(of weight: TensorInfo) -> FloatType { FloatType(weight.type) ?? .f32 }

  package func encode(_ piece: Piece, from input: PieceInput, into buffer: PieceBuffer) throws(Failure) {
    guard let absmax = (piece.work.state as? BlockMaxima)?.values else {
      throw Failure(.internal, "no room for block maxima")
    }
    let format = scheme.format
    let values = try buffer.read(input)
    var codes = buffer.makeOutput(format.packedByteCount(piece.elements.count))
    let first = piece.elements.lowerBound / format.blockSize
    var blocks = absmax.floats(first..<first + format.blockCount(piece.elements.count))
    do throws(NonFinite) {
      try format.quantize(values, as: type(of: piece.work.info), codes: &codes, absmax: &blocks)
    } catch {
      throw .notFinite(error.value, at: piece.elements.lowerBound + error.index, piece, "quantized")
    }
  }

  package func finish(_ work: TensorWork, write: (RawSpan) throws(Failure) -> Void) throws(Failure) {
    guard let maxima = work.state as? BlockMaxima else { throw Failure(.internal, "no room for block maxima") }
    let type = type(of: work.info)
    let absmax = maxima.values
    let outputs = try scheme.outputs(for: work.info, type: type)
    let nested = scheme.usesDoubleQuantization ? NestedAbsmax(absmax.floats) : nil
    for (part, output) in zip(scheme.parts, outputs) {
      switch part {
      case .codes: break
      case .absmax: try write(absmax.bytes)
      case .absmaxCodes: if let nested { try write(nested.codes.span.rawBytes) }
      case .nestedAbsmax: if let nested { try write(nested.absmax.span.rawBytes) }
      case .quantMap: try write(scheme.format.code.levels.span.rawBytes)
      case .nestedQuantMap:
        let map = DoubleQuantization.map
        try write(map.span.rawBytes)
      case .quantState:
        let text = scheme.state(of: work.info, type: type, offset: nested?.offset ?? 0).text
        let padding = output.byteCount - text.utf8.count
        guard padding >= 0 else {
          throw Failure(.internal, "the quant_state outgrew its place", tensor: output.name.string)
        }
        let padded = Array(text.utf8) + Array(repeating: UInt8(ascii: " "), count: padding)
        try write(padded.span.rawBytes)
      }
    }
  }
}

/// The largest magnitude of each block of a whole weight.
package final class BlockMaxima: Sendable {
  package let values: SharedBuffer

  package init(count: Int) { values = SharedBuffer(byteCount: 4 * count) }
}
