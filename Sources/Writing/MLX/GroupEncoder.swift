package import Bytes
import Checkpoints
import PackedWeights
package import Quantization
package import Tensors

/// Stores a weight as MLX does: codes, and behind them a scale of each group of a row and, for affine groups, a bias.
package struct GroupEncoder: TensorEncoder {
  package let format: GroupFormat

  package init(format: GroupFormat) {
    self.format = format
  }

  /// The end of the names of weights, which codes keep and `.scales` and `.biases` stand in place of.
  package static let suffix = MLXWeight.suffix

  package var schemeName: String? { format.typeName }

  package func outputs(for weight: TensorInfo) throws(Failure) -> [StoredTensor] {
    guard let module = weight.name.dropping(suffix: Self.suffix), let columns = weight.shape.last,
      weight.shape.count > 1, let type = FloatType(weight.type)
    else { throw Failure(.unsupported, "is no weight that MLX can quantize", tensor: weight.name.string) }
    guard columns % format.groupSize == 0 else {
      throw Failure(
        .unsupported, "has rows of \(columns), which are no whole groups of \(format.groupSize)",
        tensor: weight.name.string)
    }
    func output(_ name: TensorName, _ type: ElementType, _ columns: Int) throws(Failure) -> StoredTensor {
      StoredTensor(try TensorInfo(name: name, type: type, shape: weight.shape.dropLast() + [columns]))
    }
    let groups = columns / format.groupSize
    var outputs = [try output(weight.name, .u32, columns / MLXWeight.wordBits * format.bits)]
    outputs.append(try output(module + MLXWeight.scales, format.mode == .affine ? type.elementType : .u8, groups))
    if format.hasBiases { outputs.append(try output(module + MLXWeight.biases, type.elementType, groups)) }
    return outputs
  }

  package func makeState(for weight: TensorInfo) -> (any Sendable)? {
    let type = type(of: weight)
    return GroupStatistics(
      scales: format.scaleByteCount(weight.elementCount, as: type),
      biases: format.biasByteCount(weight.elementCount, as: type))
  }

  private func type(of weight: TensorInfo) -> FloatType { FloatType(weight.type) ?? .f32 }

  package func encode(_ piece: Piece, from input: PieceInput, into buffer: PieceBuffer) throws(Failure) {
    guard let statistics = piece.work.state as? GroupStatistics else { throw Failure(.internal, "no room for scales") }
    let type = type(of: piece.work.info)
    let (start, count) = (piece.elements.lowerBound, piece.elements.count)
    let values = try buffer.read(input)
    var codes = buffer.makeOutput(format.packedByteCount(count))
    let scaleStart = format.scaleByteCount(start, as: type)
    let biasStart = format.biasByteCount(start, as: type)
    let (allScales, allBiases) = (statistics.scales, statistics.biases)
    var scales = allScales.part(scaleStart..<scaleStart + format.scaleByteCount(count, as: type))
    var biases = allBiases.part(biasStart..<biasStart + format.biasByteCount(count, as: type))
    do throws(NonFinite) {
      try format.quantize(values, as: type, packed: &codes, scales: &scales, biases: &biases)
    } catch {
      guard error.value.isFinite else {
        throw .notFinite(error.value, at: start + error.index, piece, "quantized")
      }
      throw Failure(
        .malformed, "element \(start + error.index) is \(error.value), and the range of its group is infinite",
        tensor: piece.work.info.name.string)
    }
  }

  package func finish(_ work: TensorWork, write: (RawSpan) throws(Failure) -> Void) throws(Failure) {
    guard let statistics = work.state as? GroupStatistics else { throw Failure(.internal, "no room for scales") }
    let (scales, biases) = (statistics.scales, statistics.biases)
    try write(scales.bytes)
    if format.hasBiases { try write(biases.bytes) }
  }
}

/// Scales and biases of all groups of a weight, as they are stored.
final class GroupStatistics: Sendable {
  let scales: SharedBuffer
  let biases: SharedBuffer

  init(scales: Int, biases: Int) {
    self.scales = SharedBuffer(byteCount: scales)
    self.biases = SharedBuffer(byteCount: biases)
  }
}
