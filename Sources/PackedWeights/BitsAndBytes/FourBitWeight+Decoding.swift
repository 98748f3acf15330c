package import Bytes
package import Quantization
import Tensors

extension FourBitWeight: PackedWeight {
  package var typeName: String { state.code.rawValue.uppercased() }
  package var scheme: String { "bitsandbytes-\(state.code.rawValue)" }

  package func decode(
    _ elements: Range<Int>, of checkpoint: any StoredTensors, as type: FloatType,
    into destination: inout MutableRawSpan
  ) throws(Failure) {
    // From the start of a group of 256 blocks, so that the statistics of both levels begin with it.
    let group = DoubleQuantization.blockSize
    let firstBlock = elements.lowerBound / format.blockSize / group * group
    let origin = firstBlock * format.blockSize
    let packed = try ScratchBuffer(
      checkpoint, codes, at: origin / 2, count: format.packedByteCount(elements.upperBound - origin))
    let maxima = try blockMaxima(firstBlock..<format.blockCount(elements.upperBound), of: checkpoint)
    format.dequantize(
      codes: packed.bytes, absmax: maxima.floats,
      elements: elements.lowerBound - origin..<elements.upperBound - origin, into: &destination, as: type)
  }

  private func blockMaxima(_ blocks: Range<Int>, of checkpoint: any StoredTensors) throws(Failure) -> ScratchBuffer {
    guard let nestedAbsmax, let nestedQuantMap, let offset = state.nestedOffset else {
      return try ScratchBuffer(checkpoint, absmax, at: 4 * blocks.lowerBound, count: 4 * blocks.count)
    }
    let codes = try ScratchBuffer(checkpoint, absmax, at: blocks.lowerBound, count: blocks.count)
    let group = DoubleQuantization.blockSize
    let nested = try ScratchBuffer(
      checkpoint, nestedAbsmax, at: 4 * (blocks.lowerBound / group),
      count: 4 * DoubleQuantization.blockCount(blocks.count))
    let map = try ScratchBuffer(checkpoint, nestedQuantMap, at: 0, count: 1024)
    var result = ScratchBuffer(byteCount: 4 * blocks.count)
    var maxima = result.mutableFloats
    DoubleQuantization.dequantize(
      codes: codes.bytes, nestedAbsmax: nested.floats, map: Array(copying: map.floats), offset: offset,
      blocks: 0..<blocks.count, into: &maxima)
    return result
  }
}
