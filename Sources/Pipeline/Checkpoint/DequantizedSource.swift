import Bytes
import Quantization
import Safetensors
import Tensors

/// A checkpoint whose 4-bit weights read as the floating-point values they stand for.
struct DequantizedSource: TensorSource {
  let logical: LogicalTensors
  let tensors: [TensorInfo]

  init(_ logical: LogicalTensors) {
    self.logical = logical
    tensors = logical.items.map(logical.info)
  }

  /// - Parameter type: what the values are meant for in the end. A weight that was quantized from another
  ///   type reads as F32, so that it is rounded once.
  init(_ logical: LogicalTensors, for type: FloatType) throws(Failure) {
    self.logical = logical
    var tensors: [TensorInfo] = []
    for item in logical.items {
      let info = logical.info(item)
      switch item {
      case .fourBit(let weight) where weight.state.type != type:
        tensors.append(try TensorInfo(name: info.name, type: .f32, shape: info.shape))
      default: tensors.append(info)
      }
    }
    self.tensors = tensors
  }

  func isFourBit(_ index: Int) -> Bool {
    if case .fourBit = logical.items[index] { true } else { false }
  }

  func origin(of index: Int) -> Step.Origin {
    switch logical.items[index] {
    case .plain(let stored): .stored(stored)
    case .fourBit(let weight): .derived(weight.parts)
    }
  }

  func storedByteCount(of index: Int) -> Int { logical.byteCount(logical.items[index]) }

  func read(
    _ index: Int, at offset: Int, into destination: UnsafeMutableRawBufferPointer
  ) throws(Failure) {
    switch logical.items[index] {
    case .plain(let stored): try unsafe logical.checkpoint.read(stored, at: offset, into: destination)
    case .fourBit(let weight):
      let type = FloatType(tensors[index].type) ?? weight.state.type
      try unsafe dequantize(weight, as: type, at: offset, into: destination)
    }
  }

  /// Pieces start and end between elements: runs cut at multiples of every element's size.
  private func dequantize(
    _ weight: FourBitWeight, as type: FloatType, at offset: Int, into destination: UnsafeMutableRawBufferPointer
  ) throws(Failure) {
    let width = type.byteCount
    guard offset % width == 0, destination.count % width == 0 else {
      throw Failure(.internal, "a piece cuts an element in two", tensor: weight.info.name.string)
    }
    let start = offset / width
    let end = start + destination.count / width
    if start == end { return }
    let format = weight.format
    // From the start of a group of 256 blocks, so that the statistics of both levels begin with it.
    let group = DoubleQuantization.blockSize
    let firstBlock = start / format.blockSize / group * group
    let blocks = firstBlock..<format.blockCount(end)
    let origin = firstBlock * format.blockSize
    let codes = try ScratchBuffer(
      logical.checkpoint, weight.codes, at: origin / 2, count: format.packedByteCount(end - origin))
    let absmax = try absmaxValues(of: weight, blocks)
    defer {
      extendLifetime(codes)
      extendLifetime(absmax)
    }
    unsafe format.dequantize(
      codes: codes.bytes, absmax: absmax.floats, elements: start - origin..<end - origin, into: destination,
      as: type)
  }

  private func absmaxValues(of weight: FourBitWeight, _ blocks: Range<Int>) throws(Failure) -> ScratchBuffer {
    let checkpoint = logical.checkpoint
    guard let nestedAbsmax = weight.nestedAbsmax, let map = weight.nestedQuantMap,
      let offset = weight.state.nestedOffset
    else {
      return try ScratchBuffer(checkpoint, weight.absmax, at: 4 * blocks.lowerBound, count: 4 * blocks.count)
    }
    let codes = try ScratchBuffer(checkpoint, weight.absmax, at: blocks.lowerBound, count: blocks.count)
    let group = DoubleQuantization.blockSize
    let nested = try ScratchBuffer(
      checkpoint, nestedAbsmax, at: 4 * (blocks.lowerBound / group),
      count: 4 * DoubleQuantization.blockCount(blocks.count))
    let mapValues = try ScratchBuffer(checkpoint, map, at: 0, count: 1024)
    let result = ScratchBuffer(byteCount: 4 * blocks.count)
    defer {
      extendLifetime(codes)
      extendLifetime(nested)
      extendLifetime(mapValues)
    }
    unsafe DoubleQuantization.dequantize(
      codes: codes.bytes.assumingMemoryBound(to: UInt8.self), nestedAbsmax: nested.floats, map: Array(mapValues.floats),
      offset: offset, blocks: 0..<blocks.count, into: result.mutableFloats)
    return result
  }
}
