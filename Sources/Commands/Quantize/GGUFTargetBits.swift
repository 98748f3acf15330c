import Bytes
import Calibration
import Checkpoints
import GGUF
import PackedWeights
import Quantization
import Tensors
import Writing

/// Which tensors of a GGUF file get a type of more bits where a number of bits for each weight is given: those in which
/// the bits save most.
struct GGUFTargetBits {
  /// What was chosen.
  struct Choice {
    /// A type for each tensor, those that are raised in the place of the mixture's.
    var types: [GGMLType]
    var summary: QuantizationSummary.Budget
  }

  /// Types that tensors are raised to, besides the one they have.
  private static let ladder: [GGMLType] = [.q4_K, .q5_K, .q6_K, .q8_0]

  /// Bits for each weight of the tensors that are quantized.
  let bits: Double

  /// - Parameters:
  ///   - items: positions of the tensors that are quantized.
  ///   - types: of all tensors, as the mixture has them.
  ///   - importance: of the columns of some tensors, by position; of experts one after the other.
  /// - Throws: `usage` for fewer bits than the mixture takes.
  func choose(
    _ items: [Int], types: [GGMLType], _ scan: LossScan, importance: [Int: [Float]]
  ) throws(Failure) -> Choice {
    guard !items.isEmpty else {
      throw Failure(.usage, "option '--target-bits' has no effect: no tensor is quantized here")
    }
    let tensors = items.map { scan.source.tensors[$0] }
    let ways = zip(items, tensors).map { item, info in Self.ways(of: info, from: types[item]) }
    let count = tensors.reduce(0.0) { $0 + Double($1.elementCount) }
    let floor = zip(tensors, ways).reduce(0) { $0.addingSaturated(Self.byteCount($1.0, $1.1[0])) }
    let allowed = Int(bits * count / 8)
    guard floor <= allowed else {
      throw Failure(
        .usage,
        "option '--target-bits': \(bits) is less than what the tensors take already, "
          + "\(TargetBits.rounded(8 * Double(floor) / max(1, count))) bits a weight (--pure, or a smaller scheme, leaves more to spend)"
      )
    }
    let means = zip(items, tensors).reduce(into: [TensorName: [Float]]()) { means, tensor in
      means[tensor.1.name] = importance[tensor.0].map { Self.average($0, columns: tensor.1.shape.last ?? 1) }
    }
    let candidates = zip(tensors, ways).reduce(into: [:]) { $0[$1.0.name] = $1.1 }
    let read: LossScan.Reading = { values, part, each throws(Failure) in
      for type in candidates[part.info.name] ?? [] {
        try Self.readBack(values, part, type, means[part.info.name], each)
      }
    }
    let losses = try scan.run(
      items, means: { means[$0.name] }, unit: { max(1, $0.shape.last ?? 1) }, stored: read)
    let things = zip(zip(tensors, ways), losses).map { tensor, losses in
      zip(tensor.1, losses).map { BitBudget.Way(bytes: Self.byteCount(tensor.0, $0), loss: $1) }
    }
    let chosen = BitBudget.choose(things, budget: allowed - floor)
    var result = types
    var (bytes, saved, all) = (0, 0.0, 0.0)
    var raised: [(name: String, gain: Double)] = []
    for (place, way) in chosen.enumerated() where !things[place].isEmpty {
      result[items[place]] = ways[place][way]
      bytes = bytes.addingSaturated(things[place][way].bytes)
      all += things[place][0].loss
      guard way > 0 else { continue }
      let gain = things[place][0].loss - things[place][way].loss
      saved += gain
      raised.append(
        (
          "\(tensors[place].name.string)=\(ways[place][way].name)",
          gain / Double(things[place][way].bytes - things[place][0].bytes)
        ))
    }
    raised.sort { ($1.gain, $0.name) < ($0.gain, $1.name) }
    return Choice(
      types: result,
      summary: .init(
        target: bits, bits: 8 * Double(bytes) / max(1, count), raised: raised.map(\.name), of: items.count,
        share: all > 0 ? saved / all : 0, isWeighted: !importance.isEmpty))
  }

  /// The type that a tensor has, and those of more bits that its rows are whole blocks of.
  private static func ways(of info: TensorInfo, from type: GGMLType) -> [GGMLType] {
    guard type.blockType != nil else { return [type] }
    let columns = max(1, info.shape.last ?? 1)
    return [type]
      + ladder.filter { other in
        other.bytesPerBlock * type.valuesPerBlock > type.bytesPerBlock * other.valuesPerBlock
          && columns % other.valuesPerBlock == 0
      }
  }

  private static func byteCount(_ info: TensorInfo, _ type: GGMLType) -> Int {
    (info.elementCount / type.valuesPerBlock).multipliedSaturated(by: type.bytesPerBlock)
  }

  /// Experts are stored in one type: what their columns count is the mean over them.
  private static func average(_ importance: [Float], columns: Int) -> [Float] {
    let experts = importance.count / columns
    guard experts > 1 else { return importance }
    return (0..<columns).map { column in
      var sum: Float = 0
      for expert in 0..<experts { sum += importance[expert * columns + column] }
      return sum / Float(experts)
    }
  }

  private static func readBack(
    _ values: Span<Float>, _ part: LossScan.Part, _ type: GGMLType, _ importance: [Float]?,
    _ each: (Span<Float>) -> Void
  ) throws(Failure) {
    var result = ScratchBuffer(byteCount: 4 * values.count)
    guard let block = type.blockType else { return each(values) }
    var blocks = ScratchBuffer(byteCount: values.count / type.valuesPerBlock * type.bytesPerBlock)
    var room = blocks.mutableBytes
    let row = max(1, part.info.shape.last ?? 1)
    do throws(NonFinite) {
      try block.encode(values, rowLength: row, importance: importance?.span, into: &room)
    } catch {
      throw Failure(
        .malformed,
        "element \(part.elements.lowerBound + error.index) is \(error.value), which cannot be stored as "
          + type.name.uppercased(), tensor: part.info.name.string)
    }
    var floats = result.mutableFloats
    block.decode(blocks.bytes, into: &floats)
    each(result.floats)
  }
}
