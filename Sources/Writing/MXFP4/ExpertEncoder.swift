package import Bytes
import Checkpoints
import PackedWeights
import Quantization
package import Tensors

/// Stores a stack of experts' matrices, [experts, outputs, inputs], as gpt-oss has it: `P_blocks`, [experts, outputs,
/// inputs / 32, 16], two codes of E2M1 in a byte, the first in its lower half; behind them `P_scales`, [experts, outputs,
/// inputs / 32], powers of two.
package struct ExpertEncoder: TensorEncoder {
  package static let schemeName = "MXFP4"

  private static let format = ScaledFormat.nearestMXFP4
  private static let groupSize = 32

  /// Bytes of the values of a piece. transformers has the matrices the other way round, so that a piece is a strip of
  /// each stored row: the more outputs it has, the longer these are.
  private static let pieceByteCount = 8 * Piece.byteCount

  private let scaled = ScaledEncoder(format: format, isTurned: true)
  private let takesMatrices: Bool

  /// - Parameter takesMatrices: whether a piece is a whole matrix, for a source that computes its values by rows.
  package init(takesMatrices: Bool) { self.takesMatrices = takesMatrices }

  package var schemeName: String? { Self.schemeName }

  package func pieceByteCount(for weight: TensorInfo) -> Int {
    let row = max(1, weight.shape.last ?? 1) * max(1, weight.type.bitWidth / 8)
    let rows = max(1, weight.shape.dropLast().last ?? 1)
    return (takesMatrices ? rows : max(1, Self.pieceByteCount / row)) * row
  }

  package func outputs(for weight: TensorInfo) throws(Failure) -> [StoredTensor] {
    guard weight.shape.count == 3, FloatType(weight.type) != nil else {
      throw Failure(
        .unsupported, "is \(weight.type.name) of shape \(weight.shape), and no stack of experts' matrices",
        tensor: weight.name.string)
    }
    let inputs = weight.shape[2]
    guard inputs % Self.groupSize == 0 else {
      throw Failure(
        .unsupported, "has \(inputs) inputs, which are no whole blocks of \(Self.groupSize)", tensor: weight.name.string
      )
    }
    let grid = [weight.shape[0], weight.shape[1], inputs / Self.groupSize]
    return [
      StoredTensor(
        try TensorInfo(name: weight.name + "_blocks", type: .u8, shape: grid + [Self.groupSize / 2])),
      StoredTensor(try TensorInfo(name: weight.name + "_scales", type: .u8, shape: grid)),
    ]
  }

  package func makeState(for weight: TensorInfo) -> (any Sendable)? { scaled.makeState(for: weight) }

  package func encode(_ piece: Piece, from input: PieceInput, into buffer: PieceBuffer) throws(Failure) {
    try scaled.encode(piece, from: input, into: buffer)
  }

  package func finish(_ work: TensorWork, write: (RawSpan) throws(Failure) -> Void) throws(Failure) {
    try scaled.finish(work, write: write)
  }
}
