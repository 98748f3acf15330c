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
    guard let maxima = piece.work.state as? BlockMaxima else { throw Failure(.internal, "no room for block maxima") }
    let format = scheme.format
    let values = try unsafe buffer.read(input)
    let codes = unsafe buffer.makeOutput(format.packedByteCount(piece.elements.count))
    let first = piece.elements.lowerBound / format.blockSize
    let blocks = unsafe UnsafeMutableBufferPointer(
      rebasing: maxima.values[first..<first + format.blockCount(piece.elements.count)])
    do throws(NonFinite) {
      try unsafe format.quantize(values, as: type(of: piece.work.info), codes: codes, absmax: blocks)
    } catch {
      throw .notFinite(error.value, at: piece.elements.lowerBound + error.index, piece, "quantized")
    }
  }

  package func finish(_ work: TensorWork, write: (UnsafeRawBufferPointer) throws(Failure) -> Void) throws(Failure) {
    guard let maxima = work.state as? BlockMaxima else { throw Failure(.internal, "no room for block maxima") }
    let type = type(of: work.info)
    let absmax = unsafe UnsafeBufferPointer(maxima.values)
    let outputs = try scheme.outputs(for: work.info, type: type)
    let nested = scheme.usesDoubleQuantization ? unsafe NestedAbsmax(absmax) : nil
    defer {
      extendLifetime(nested)
      extendLifetime(maxima)
    }
    for (part, output) in zip(scheme.parts, outputs) {
      switch part {
      case .codes: break
      case .absmax: try unsafe write(UnsafeRawBufferPointer(absmax))
      case .absmaxCodes: if let nested { try unsafe write(UnsafeRawBufferPointer(nested.codes)) }
      case .nestedAbsmax: if let nested { try unsafe write(UnsafeRawBufferPointer(nested.absmax)) }
      case .quantMap: try unsafe writeAll(scheme.format.code.levels, write)
      case .nestedQuantMap: try unsafe writeAll(DoubleQuantization.map, write)
      case .quantState:
        let text = scheme.state(of: work.info, type: type, offset: nested?.offset ?? 0).text
        let padding = output.byteCount - text.utf8.count
        guard padding >= 0 else {
          throw Failure(.internal, "the quant_state outgrew its place", tensor: output.name.string)
        }
        try unsafe writeAll(Array(text.utf8) + Array(repeating: UInt8(ascii: " "), count: padding), write)
      }
    }
  }

  private func writeAll<T: BitwiseCopyable>(
    _ values: [T], _ write: (UnsafeRawBufferPointer) throws(Failure) -> Void
  ) throws(Failure) {
    var failure: Failure?
    unsafe values.withUnsafeBytes { bytes in
      do throws(Failure) { try unsafe write(bytes) } catch { failure = error }
    }
    if let failure { throw failure }
  }
}

/// The largest magnitude of each block of a whole weight.
@safe package final class BlockMaxima: @unchecked Sendable {
  /// Workers fill disjoint parts.
  package let values: UnsafeMutableBufferPointer<Float>

  package init(count: Int) { unsafe values = .allocate(capacity: count) }

  deinit { unsafe values.deallocate() }
}
