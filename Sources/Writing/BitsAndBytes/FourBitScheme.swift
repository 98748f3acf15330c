package import Bytes
package import PackedWeights
package import Quantization
package import Tensors

/// How a weight is stored in 4 bits: the physical tensors that take its place, in file order.
package struct FourBitScheme: Sendable, Equatable {
  package var format: FourBitFormat
  package var usesDoubleQuantization: Bool
  /// The dtype under which the packed codes are stored; the bytes are the same.
  package var storage: ElementType

  package init(format: FourBitFormat, usesDoubleQuantization: Bool, storage: ElementType) {
    self.format = format
    self.usesDoubleQuantization = usesDoubleQuantization
    self.storage = storage
  }

  /// Each weight's tensors together fill whole multiples of this, so the next weight's codes start at one.
  package static let alignment = 64

  /// The parts in file order. Codes come first because they are known first, and the JSON, whose padding
  /// takes up the slack, stands before the 32-bit parts, which keeps those aligned.
  package enum Part: Sendable {
    case codes, absmaxCodes, quantState, quantMap, nestedQuantMap, nestedAbsmax, absmax
  }

  package var parts: [Part] {
    usesDoubleQuantization
      ? [.codes, .absmaxCodes, .quantState, .quantMap, .nestedQuantMap, .nestedAbsmax]
      : [.codes, .quantState, .quantMap, .absmax]
  }

  package func state(of weight: TensorInfo, type: FloatType, offset: Float = 0) -> QuantState {
    QuantState(
      code: format.code, blockSize: format.blockSize, type: type, shape: weight.shape,
      nestedOffset: usesDoubleQuantization ? offset : nil)
  }

  /// The physical tensors of `weight`, one for each of `parts`.
  ///
  /// - Throws: `unsupported` when the packed bytes do not fill whole elements of `storage`.
  package func outputs(for weight: TensorInfo, type: FloatType) throws(Failure) -> [TensorInfo] {
    let name = weight.name
    let codes = format.packedByteCount(weight.elementCount)
    let blocks = format.blockCount(weight.elementCount)
    let nestedBlocks = (blocks + DoubleQuantization.blockSize - 1) / DoubleQuantization.blockSize
    let width = storage.bitWidth / 8
    guard codes % width == 0 else {
      throw Failure(
        .unsupported, "its \(codes) bytes of codes do not fill whole elements of \(storage.name) (--quant-storage)",
        tensor: name.string)
    }
    let others = usesDoubleQuantization ? codes + blocks + 64 + 1024 + 4 * nestedBlocks : codes + 64 + 4 * blocks
    let natural = state(of: weight, type: type).reservedByteCount
    let padding = (Self.alignment - (others + natural) % Self.alignment) % Self.alignment
    var result: [TensorInfo] = []
    for part in parts {
      switch part {
      case .codes: result.append(try TensorInfo(name: name, type: storage, shape: [codes / width, 1]))
      case .absmaxCodes: result.append(try TensorInfo(name: name + ".absmax", type: .u8, shape: [blocks]))
      case .quantState:
        let key = Companion.quantState(format.code).suffix
        result.append(try TensorInfo(name: name + key, type: .u8, shape: [natural + padding]))
      case .quantMap: result.append(try TensorInfo(name: name + ".quant_map", type: .f32, shape: [16]))
      case .nestedQuantMap: result.append(try TensorInfo(name: name + ".nested_quant_map", type: .f32, shape: [256]))
      case .nestedAbsmax:
        result.append(try TensorInfo(name: name + ".nested_absmax", type: .f32, shape: [nestedBlocks]))
      case .absmax: result.append(try TensorInfo(name: name + ".absmax", type: .f32, shape: [blocks]))
      }
    }
    return result
  }

  /// Bytes of all outputs together.
  package func byteCount(for weight: TensorInfo, type: FloatType) throws(Failure) -> Int {
    try outputs(for: weight, type: type).reduce(0) { $0 + $1.byteCount }
  }
}
