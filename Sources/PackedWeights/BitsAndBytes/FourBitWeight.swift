package import Bytes
package import Quantization
package import Tensors

/// A 4-bit weight of a checkpoint, its parts found and checked against each other.
package struct FourBitWeight: Sendable {
  /// The weight as the model sees it: dtype and shape of the quant_state.
  package let info: TensorInfo
  package let state: QuantState
  package let format: FourBitFormat

  /// Positions among the stored tensors.
  package let codes: Int
  package let absmax: Int
  package let nestedAbsmax: Int?
  package let nestedQuantMap: Int?
  package let quantMap: Int
  let stateText: Int

  package var parts: [Int] {
    [codes, absmax, stateText, quantMap] + [nestedQuantMap, nestedAbsmax].compactMap(\.self)
  }

  /// The name of the weight whose quant_state this tensor is, and the code its name tells.
  package static func weight(ofState name: TensorName) -> (name: TensorName, code: FourBitCode)? {
    for code in FourBitCode.allCases {
      if let weight = name.dropping(suffix: Companion.quantState(code).suffix) { return (weight, code) }
    }
    return nil
  }

  /// - Parameter stateText: position of the quant_state tensor.
  /// - Throws: `malformed` when a part is missing or does not fit the others.
  package init(_ stateText: Int, in checkpoint: any StoredTensors) throws(Failure) {
    let stored = checkpoint.tensors
    let stateInfo = stored[stateText]
    guard let (name, code) = Self.weight(ofState: stateInfo.name) else {
      throw Failure(.internal, "is not a quant_state", tensor: stateInfo.name.string)
    }
    do throws(Failure) {
      func part(_ suffix: String, _ types: [ElementType], _ shapes: [[Int]]) throws(Failure) -> Int {
        guard let index = checkpoint.index(of: name + suffix) else {
          throw Failure(.malformed, "is a 4-bit weight, but '\(suffix)' is missing beside it")
        }
        let info = stored[index]
        guard types.contains(info.type) else {
          let allowed = types.map(\.name).joined(separator: ", ")
          throw Failure(.malformed, "'\(suffix)' is \(info.type.name), allowed is \(allowed)")
        }
        guard shapes.contains(info.shape) else {
          throw Failure(.malformed, "'\(suffix)' has shape \(info.shape), expected \(shapes[0])")
        }
        return index
      }
      guard stateInfo.type == .u8, stateInfo.byteCount <= 65_536 else {
        throw Failure(
          .malformed,
          "its quant_state is \(stateInfo.type.name) of \(stateInfo.byteCount) bytes, expected U8 of up to 65536")
      }
      let state = try QuantState(parsing: try checkpoint.bytes(of: stateText))
      guard state.code == code, let format = FourBitFormat(code: code, blockSize: state.blockSize) else {
        throw Failure(.malformed, "the quant_state says \(state.code.rawValue), its name says \(code.rawValue)")
      }
      let info = try TensorInfo(name: name, type: state.type.elementType, shape: state.shape)
      guard let codes = checkpoint.index(of: name) else {
        throw Failure(.malformed, "has a quant_state but is itself missing")
      }
      guard [.u8, .bf16, .f16, .f32].contains(stored[codes].type) else {
        throw Failure(.malformed, "holds packed codes as \(stored[codes].type.name), allowed are U8, BF16, F16, F32")
      }
      let packed = format.packedByteCount(info.elementCount)
      guard stored[codes].byteCount == packed else {
        throw Failure(
          .malformed,
          "has \(stored[codes].byteCount) bytes of codes, the quant_state's shape \(state.shape) needs \(packed)")
      }
      let blocks = format.blockCount(info.elementCount)
      quantMap = try part(".quant_map", [.f32, .f16, .bf16], [[16]])
      if state.nestedOffset != nil {
        absmax = try part(".absmax", [.u8], [[blocks], [blocks, 1]])
        nestedAbsmax = try part(".nested_absmax", [.f32], [[DoubleQuantization.blockCount(blocks)]])
        nestedQuantMap = try part(".nested_quant_map", [.f32], [[256]])
      } else {
        absmax = try part(".absmax", [.f32], [[blocks], [blocks, 1]])
        nestedAbsmax = nil
        nestedQuantMap = nil
      }
      self.info = info
      self.state = state
      self.format = format
      self.codes = codes
      self.stateText = stateText
    } catch { throw error.located(file: checkpoint.location(of: stateText).file, tensor: name.string) }
  }
}
