package import Bytes
import PackedWeights
package import Quantization
import Synchronization
package import Tensors

/// A source with some of its weights as they are after 4-bit quantization and back: what an adapter trained on
/// the quantized model has seen.
package struct SimulatedSource: WrappingSource {
  package let base: any TensorSource
  private let weights: Set<Int>
  private let format: FourBitFormat
  private let statistics = Statistics()
  /// Bytes of values read at a time: a multiple of every block size in every type.
  private static let pieceByteCount = 512 * 1024

  /// - Parameter weights: positions of matrices in the orientation in which they are quantized.
  package init(_ base: any TensorSource, weights: Set<Int>, format: FourBitFormat) {
    self.base = base
    self.weights = weights
    self.format = format
  }

  package func changes(_ index: Int) -> Bool { weights.contains(index) }

  /// - Throws: `malformed` for a value that is not finite.
  package func read(
    _ index: Int, at offset: Int, into destination: inout MutableRawSpan
  ) throws(Failure) {
    let info = tensors[index]
    guard changes(index), let type = FloatType(info.type), destination.byteCount > 0 else {
      return try base.read(index, at: offset, into: &destination)
    }
    let width = type.byteCount
    guard offset % width == 0, destination.byteCount % width == 0 else {
      throw Failure(.internal, "a piece cuts an element in two", tensor: info.name.string)
    }
    let restored = try statistics.absmax(of: index) { () throws(Failure) in try restoredAbsmax(index, info, type) }
    let elements = offset / width..<(offset + destination.byteCount) / width
    let blocks = elements.lowerBound / format.blockSize..<format.blockCount(elements.upperBound)
    let start = blocks.lowerBound * format.blockSize
    let end = min(blocks.upperBound * format.blockSize, info.elementCount)
    let values = try ScratchBuffer(base, index, at: start * width, count: (end - start) * width)
    var codes = ScratchBuffer(byteCount: format.packedByteCount(end - start))
    var absmax = ScratchBuffer(byteCount: 4 * blocks.count)
    try quantize(values.bytes, type, start, info, codes: &codes, absmax: &absmax)
    format.dequantize(
      codes: codes.bytes, absmax: restored.span.extracting(blocks),
      elements: elements.lowerBound - start..<elements.upperBound - start, into: &destination, as: type)
  }

  private func quantize(
    _ values: RawSpan, _ type: FloatType, _ start: Int, _ info: TensorInfo, codes: inout ScratchBuffer,
    absmax: inout ScratchBuffer
  ) throws(Failure) {
    var codeBytes = codes.mutableBytes
    var maxima = absmax.mutableFloats
    do throws(NonFinite) {
      try format.quantize(values, as: type, codes: &codeBytes, absmax: &maxima)
    } catch {
      throw Failure(
        .malformed, "element \(start + error.index) is \(error.value), a model to be merged must be finite",
        tensor: info.name.string)
    }
  }

  /// The block maxima of the whole tensor, as double quantization leaves them: their mean must be known first.
  private func restoredAbsmax(_ index: Int, _ info: TensorInfo, _ type: FloatType) throws(Failure) -> [Float] {
    let count = format.blockCount(info.elementCount)
    var all = ScratchBuffer(byteCount: 4 * count)
    let step = Self.pieceByteCount / type.byteCount
    var codes = ScratchBuffer(byteCount: format.packedByteCount(step))
    var start = 0
    while start < info.elementCount {
      try Interruption.check()
      let end = min(start + step, info.elementCount)
      let values = try ScratchBuffer(base, index, at: start * type.byteCount, count: (end - start) * type.byteCount)
      var absmax = ScratchBuffer(byteCount: 4 * format.blockCount(end - start))
      try quantize(values.bytes, type, start, info, codes: &codes, absmax: &absmax)
      let at = 4 * (start / format.blockSize)
      var room = all.mutableBytes
      var part = room.part(at..<at + absmax.bytes.byteCount)
      part.copy(from: absmax.bytes)
      start = end
    }
    let nested = NestedAbsmax(all.floats)
    var restored = [Float](repeating: 0, count: count)
    var room = restored.mutableSpan
    DoubleQuantization.dequantize(
      codes: nested.codes.span.rawBytes, nestedAbsmax: nested.absmax.span, offset: nested.offset, blocks: 0..<count,
      into: &room)
    return restored
  }

  /// The absmax of the tensors under way: computed once, by whoever needs them first.
  private final class Statistics: Sendable {
    private let known = Mutex<[(index: Int, absmax: [Float])]>([])

    func absmax(of index: Int, _ compute: () throws(Failure) -> [Float]) throws(Failure) -> [Float] {
      try known.withLock { (known) throws(Failure) in
        if let found = known.first(where: { $0.index == index }) { return found.absmax }
        let computed = try compute()
        if known.count >= 3 { known.removeFirst() }
        known.append((index, computed))
        return computed
      }
    }
  }
}
