package import Bytes
package import Quantization
import Synchronization
package import Tensors

/// A source with some of its weights as they are after 4-bit quantization and back: what an adapter trained on
/// the quantized model has seen.
package struct SimulatedSource: TensorSource {
  package let base: any TensorSource
  package var tensors: [TensorInfo] { base.tensors }
  private let weights: Set<Int>
  private let format: FourBitFormat
  private let statistics = Statistics()
  /// Of the values, read at a time: a multiple of every block size in every type.
  private static let pieceByteCount = 512 * 1024

  /// - Parameter weights: positions of matrices in the orientation in which they are quantized.
  package init(_ base: any TensorSource, weights: Set<Int>, format: FourBitFormat) {
    self.base = base
    self.weights = weights
    self.format = format
  }

  package func storedByteCount(of index: Int) -> Int { base.storedByteCount(of: index) }

  /// - Throws: `malformed` for a value that is not finite.
  package func read(
    _ index: Int, at offset: Int, into destination: UnsafeMutableRawBufferPointer
  ) throws(Failure) {
    let info = tensors[index]
    guard weights.contains(index), let type = FloatType(info.type), destination.count > 0 else {
      return try unsafe base.read(index, at: offset, into: destination)
    }
    let width = type.byteCount
    guard offset % width == 0, destination.count % width == 0 else {
      throw Failure(.internal, "a piece cuts an element in two", tensor: info.name.string)
    }
    let restored = try statistics.absmax(of: index) { () throws(Failure) in try restoredAbsmax(index, info, type) }
    let elements = offset / width..<(offset + destination.count) / width
    let blocks = elements.lowerBound / format.blockSize..<format.blockCount(elements.upperBound)
    let start = blocks.lowerBound * format.blockSize
    let end = min(blocks.upperBound * format.blockSize, info.elementCount)
    let values = try ScratchBuffer(base, index, at: start * width, count: (end - start) * width)
    let codes = ScratchBuffer(byteCount: format.packedByteCount(end - start))
    let absmax = ScratchBuffer(byteCount: 4 * blocks.count)
    defer {
      extendLifetime(values)
      extendLifetime(codes)
      extendLifetime(absmax)
    }
    try quantize(values, type, start, info, codes: codes, absmax: absmax)
    unsafe restored.withUnsafeBufferPointer { restored in
      let own = unsafe UnsafeBufferPointer(rebasing: restored[blocks])
      unsafe format.dequantize(
        codes: codes.bytes, absmax: own, elements: elements.lowerBound - start..<elements.upperBound - start,
        into: destination, as: type)
    }
  }

  private func quantize(
    _ values: ScratchBuffer, _ type: FloatType, _ start: Int, _ info: TensorInfo, codes: ScratchBuffer,
    absmax: ScratchBuffer
  ) throws(Failure) {
    defer { extendLifetime(values) }
    do throws(NonFinite) {
      try unsafe format.quantize(
        values.bytes, as: type, codes: codes.mutableBytes, absmax: absmax.mutableFloats)
    } catch {
      throw Failure(
        .malformed, "element \(start + error.index) is \(error.value), a model to be merged must be finite",
        tensor: info.name.string)
    }
  }

  /// The block maxima of the whole tensor, as double quantization leaves them: their mean must be known first.
  private func restoredAbsmax(_ index: Int, _ info: TensorInfo, _ type: FloatType) throws(Failure) -> [Float] {
    let count = format.blockCount(info.elementCount)
    let all = ScratchBuffer(byteCount: 4 * count)
    let step = Self.pieceByteCount / type.byteCount
    let codes = ScratchBuffer(byteCount: format.packedByteCount(step))
    defer {
      extendLifetime(all)
      extendLifetime(codes)
    }
    var start = 0
    while start < info.elementCount {
      try Interruption.check()
      let end = min(start + step, info.elementCount)
      let values = try ScratchBuffer(base, index, at: start * type.byteCount, count: (end - start) * type.byteCount)
      let absmax = ScratchBuffer(byteCount: 4 * format.blockCount(end - start))
      try quantize(values, type, start, info, codes: codes, absmax: absmax)
      let at = 4 * (start / format.blockSize)
      unsafe UnsafeMutableRawBufferPointer(rebasing: all.mutableBytes[at...]).copyMemory(from: absmax.bytes)
      start = end
    }
    let nested = unsafe NestedAbsmax(all.floats)
    defer { extendLifetime(nested) }
    return unsafe [Float](unsafeUninitializedCapacity: count) { room, written in
      unsafe DoubleQuantization.dequantize(
        codes: UnsafeBufferPointer(nested.codes), nestedAbsmax: UnsafeBufferPointer(nested.absmax),
        offset: nested.offset,
        blocks: 0..<count, into: room)
      written = count
    }
  }

  /// Of the tensors under way: computed once, by whoever needs them first.
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
