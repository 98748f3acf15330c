package import Bytes
import COpenBLAS
import Quantization
import Tensors

/// The two factors of a delta in 32 bits, ready to be multiplied: for each expert A `[rank, inputs]` and B
/// `[outputs, rank]`. A plain layer is one expert.
final class LowRankFactors: Sendable {
  /// The sizes of the factors.
  struct Shape: Sendable, Hashable {
    var experts = 1
    var rank: Int
    var inputs: Int
    var outputs: Int
  }

  let shape: Shape
  let a: [Float]
  let b: [Float]

  /// - Parameters:
  ///   - a: `[experts][rank][inputs]`.
  ///   - b: `[experts][outputs][rank]`.
  init(_ shape: Shape, a: [Float], b: [Float]) {
    precondition(a.count == shape.experts * shape.rank * shape.inputs, "A of another shape")
    precondition(b.count == shape.experts * shape.rank * shape.outputs, "B of another shape")
    self.shape = shape
    self.a = a
    self.b = b
  }

  var byteCount: Int { 4 * (a.count + b.count) }

  /// Adds `scale · B · A`, some of its rows, to `delta`, or puts it there.
  ///
  /// - Parameters:
  ///   - rows: of the product `[outputs, inputs]`, or of its transpose `[inputs, outputs]`.
  ///   - delta: `rows.count` rows, one after the other.
  func multiply(
    expert: Int, rows: Range<Int>, isTransposed: Bool, scale: Float, adding: Bool,
    into delta: inout MutableSpan<Float>
  ) {
    let (rank, inputs, outputs) = (shape.rank, shape.inputs, shape.outputs)
    precondition(expert < shape.experts && rows.upperBound <= (isTransposed ? inputs : outputs), "no such rows")
    let columns = isTransposed ? outputs : inputs
    precondition(delta.count >= rows.count * columns, "no room for the rows")
    unsafe a.withUnsafeBufferPointer { a in
      unsafe b.withUnsafeBufferPointer { b in
        unsafe delta.withUnsafeMutableBufferPointer { delta in
          guard let a = a.baseAddress, let b = b.baseAddress, let delta = delta.baseAddress else { return }
          let ownA = unsafe a + expert * rank * inputs
          let ownB = unsafe b + expert * outputs * rank
          let beta: Float = adding ? 1 : 0
          if isTransposed {
            // Aᵀ Bᵀ: the rows wanted are columns of A.
            unsafe nibble_sgemm(
              1, 1, Int32(rows.count), Int32(outputs), Int32(rank), scale, ownA + rows.lowerBound, Int32(inputs),
              ownB, Int32(rank), beta, delta, Int32(outputs))
          } else {
            unsafe nibble_sgemm(
              0, 0, Int32(rows.count), Int32(inputs), Int32(rank), scale, ownB + rows.lowerBound * rank, Int32(rank),
              ownA, Int32(inputs), beta, delta, Int32(inputs))
          }
        }
      }
    }
  }

  /// - Throws: `unsupported` when the library that multiplies is not there.
  static func checkLibrary() throws(Failure) {
    guard let problem = unsafe nibble_blas_load() else { return }
    throw unsafe Failure(.unsupported, String(cString: problem))
  }
}

/// Where experts lie in B of a stacked adapter.
public enum ExpertLayout: String, Sendable, CaseIterable {
  /// `[outputs, rank, experts]`: the number of the expert runs fastest.
  case peft
  /// `[outputs, experts, rank]`, as Unsloth packed it until September 2026.
  case unslothOld = "unsloth-old"
}

/// One adapter's A and B of one module, and how they are to be read.
struct FactorTerm: Sendable {
  let adapter: Adapter
  let module: Adapter.Module
  /// α/r or α/√r, times the adapter's weight.
  let scale: Double
  let shape: LowRankFactors.Shape
  let layout: ExpertLayout

  /// A and B as stored, in 32 bits; blocks and groups written out.
  ///
  /// - Throws: `malformed` for a value that is not finite.
  func stored() throws(Failure) -> (a: [Float], b: [Float]) {
    guard let indexA = module.a, let indexB = module.b else {
      throw Failure(.internal, "a module without factors", tensor: module.path)
    }
    var a = try adapter.floats(of: indexA)
    var b = try adapter.floats(of: indexB)
    let configuration = adapter.configuration
    if let group = configuration.groupSize, a.count < shape.rank * shape.inputs { a = spread(a, over: group) }
    if let blocks = configuration.blocks {
      switch blocks.side(of: module.path) {
      case .a: a = diagonal(a, blocks: blocks.count, rows: shape.rank, columns: shape.inputs)
      case .b: b = diagonal(b, blocks: blocks.count, rows: shape.outputs, columns: shape.rank)
      case .both, nil: break
      }
    }
    return (a, b)
  }

  /// B with the experts outermost.
  func grouped(_ b: [Float]) -> [Float] {
    let (experts, rank, outputs) = (shape.experts, shape.rank, shape.outputs)
    if experts == 1 { return b }
    var result = [Float](repeating: 0, count: b.count)
    for output in 0..<outputs {
      for k in 0..<rank {
        for expert in 0..<experts {
          let column = layout == .peft ? k * experts + expert : expert * rank + k
          result[(expert * outputs + output) * rank + k] = b[output * rank * experts + column]
        }
      }
    }
    return result
  }

  /// QA-LoRA's A has a column for each group of inputs, which the forward pass averages and multiplies by the
  /// number of groups: `A'[k, j] = A[k, j / g] · inputs / g²`.
  private func spread(_ a: [Float], over group: Int) -> [Float] {
    let columns = shape.inputs / group
    let factor = Float(Double(shape.inputs) / Double(group) / Double(group))
    return (0..<shape.rank * shape.inputs).map { index in
      a[index / shape.inputs * columns + index % shape.inputs / group] * factor
    }
  }

  /// Blocks, stored one below the other, put on the diagonal of a matrix.
  private func diagonal(_ stored: [Float], blocks: Int, rows: Int, columns: Int) -> [Float] {
    var result = [Float](repeating: 0, count: rows * columns)
    let width = columns / blocks
    let height = rows / blocks
    for row in 0..<rows {
      for column in 0..<width {
        result[row * columns + row / height * width + column] = stored[row * width + column]
      }
    }
    return result
  }
}

extension Adapter {
  /// All values of a tensor in 32 bits.
  ///
  /// - Throws: `malformed` for the first that is not finite.
  package func floats(of index: Int) throws(Failure) -> [Float] {
    let info = tensors[index]
    guard let type = FloatType(elementType: info.type) else {
      throw failure("is \(info.type.name), expected F32, BF16 or F16", tensor: index)
    }
    let stored = try ScratchBuffer(source, index, at: 0, count: info.byteCount)
    var values = [Float](repeating: 0, count: info.elementCount)
    var room = values.mutableSpan
    var bytes = room.mutableRawBytes
    // Nothing is too large for 32 bits.
    try? convert(stored.bytes, from: type, to: .f32, into: &bytes)
    if let position = values.firstIndex(where: { !$0.isFinite }) {
      throw failure("element \(position) is \(values[position]), an adapter to be merged must be finite", tensor: index)
    }
    return values
  }
}

extension FloatType {
  init?(elementType: ElementType) {
    switch elementType {
    case .bf16: self = .bf16
    case .f16: self = .f16
    case .f32: self = .f32
    default: return nil
    }
  }

  var element: ElementType {
    switch self {
    case .bf16: .bf16
    case .f16: .f16
    case .f32: .f32
    }
  }
}
