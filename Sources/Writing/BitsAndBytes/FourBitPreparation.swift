package import Architectures
package import Bytes
package import Checkpoints
package import Quantization
package import Tensors

/// Collects steps and the sources they need around the stored tensors.
package struct FourBitPreparation {
  /// Positions among the encoders.
  package static let copying = 0
  package static let copyingFinite = 1
  package static let quantizing = 2

  /// - Parameter fate: "quantized" or "merged": what a value that is not finite stands in the way of.
  package static func encoders(_ scheme: FourBitScheme, search: ScaleSearch?, fate: String) -> [any TensorEncoder] {
    [CopyEncoder(), CopyEncoder(fate: fate), FourBitEncoder(scheme: scheme, search: search)]
  }

  private let base: any TensorSource
  private let origin: (Int) -> StoredOrigin
  private let copiedF32: FloatType?
  package var steps: [Step] = []
  private var narrowed: [String] = []
  private var widened: [String] = []
  private var conversions: [Int: FloatType] = [:]
  private var transposed: Set<Int> = []

  /// - Parameters:
  ///   - copiedF32: what F32 becomes where it is not quantized, unless the model class wants it; nil to keep it.
  ///   - origin: which stored tensors a tensor of `base` comes from.
  package init(_ base: any TensorSource, copiedF32: FloatType? = nil, origin: @escaping (Int) -> StoredOrigin) {
    self.base = base
    self.copiedF32 = copiedF32
    self.origin = origin
  }

  /// - Parameters:
  ///   - isOriented: the weight lies `[outputs, inputs]` already, as it is quantized.
  ///   - mustBeFinite: whether values that are copied are looked at; those that are quantized always are.
  package mutating func add(
    _ index: Int, _ disposition: Disposition, isOriented: Bool, mustBeFinite: Bool = true
  ) throws(Failure) {
    let info = base.tensors[index]
    var origin = self.origin(index)
    if disposition == .keep(.fp32Module), info.type == .f16, let stored = origin.single {
      // Their products overflow f16; the loader widens such weights of a 16-bit checkpoint, but takes those
      // of a quantized one as they are stored.
      conversions[index] = .f32
      widened.append(info.name.string)
      origin = .derived([stored])
    } else if case .keep(let reason) = disposition, reason != .fp32Module, info.type == .f32, let copiedF32,
      copiedF32 != .f32, let stored = origin.single
    {
      conversions[index] = copiedF32
      origin = .derived([stored])
    }
    guard disposition == .quantize || disposition == .quantizeTransposed else {
      steps.append(Step(tensor: index, encoder: mustBeFinite ? Self.copyingFinite : Self.copying, origin: origin))
      return
    }
    // Counts in the trainers' kernels are 32-bit.
    guard info.elementCount <= 1 << 31 else {
      throw Failure(
        .unsupported, "has \(info.elementCount) elements, bitsandbytes counts at most 2^31; keep it (--keep)",
        tensor: info.name.string)
    }
    if info.type == .f64 {
      conversions[index] = .f32
      narrowed.append(info.name.string)
    }
    let isTransposed = disposition == .quantizeTransposed && !isOriented
    if isTransposed { transposed.insert(index) }
    if info.type == .f64 || isTransposed, let stored = origin.single {
      origin = .derived([stored])
    }
    steps.append(Step(tensor: index, encoder: Self.quantizing, origin: origin))
  }

  package func source() throws(Failure) -> any TensorSource {
    var source = base
    if !conversions.isEmpty { source = try ConvertedSource(source, conversions) }
    if !transposed.isEmpty { source = try TransposedSource(source, transposed) }
    return source
  }

  package var warnings: [Warning] {
    var warnings: [Warning] = []
    if !narrowed.isEmpty {
      warnings.append("\(narrowed.count) F64 weights are narrowed to F32 before they are quantized: \(names: narrowed)")
    }
    if !widened.isEmpty {
      warnings.append(
        "\(widened.count) F16 weights are stored as F32, in which the model class computes with them: "
          + "\(names: widened)")
    }
    return warnings
  }
}
