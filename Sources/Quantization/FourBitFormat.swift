import Kernels

/// Four-bit quantization of bitsandbytes: blocks of consecutive values share their largest magnitude,
/// and each value becomes the nearest of 16 levels relative to it.
///
/// Values are taken flat, in row-major order; blocks run across the ends of rows. Two codes share a
/// byte, the first in the high nibble.
public struct FourBitFormat: Hashable, Sendable {
  public let code: FourBitCode
  /// Values per block: a power of two from 32 to 4096.
  public let blockSize: Int

  /// Nil for a block size that bitsandbytes does not know.
  public init?(code: FourBitCode, blockSize: Int = 64) {
    guard Self.blockSizes.contains(blockSize) else { return nil }
    self.code = code
    self.blockSize = blockSize
  }

  public static let blockSizes = [32, 64, 128, 256, 512, 1024, 2048, 4096]

  /// Bytes of packed codes for `elements` values.
  public func packedByteCount(_ elements: Int) -> Int { elements / 2 + elements % 2 }

  /// Blocks, and so absmax values, of `elements` values; the last block may be partial.
  public func blockCount(_ elements: Int) -> Int {
    elements / blockSize + (elements % blockSize == 0 ? 0 : 1)
  }
}

/// A NaN or an infinity among weights that must be finite.
public struct NonFinite: Error, Equatable {
  /// Position within the values passed.
  public var index: Int
  public var value: Float

  public init(index: Int, value: Float) {
    self.index = index
    self.value = value
  }

  // NaN is found again by a test that expects it.
  public static func == (a: NonFinite, b: NonFinite) -> Bool {
    a.index == b.index && (a.value == b.value || a.value.isNaN && b.value.isNaN)
  }
}

extension FourBitFormat {
  /// The overload for unsafe buffers; those read and those written must not overlap.
  package func quantize(
    _ values: UnsafeRawBufferPointer, as type: FloatType, codes: UnsafeMutableRawBufferPointer,
    absmax: UnsafeMutableBufferPointer<Float>
  ) throws(NonFinite) {
    precondition(values.count % type.byteCount == 0, "half a value")
    let count = values.count / type.byteCount
    precondition(codes.count >= packedByteCount(count), "codes too short")
    precondition(absmax.count >= blockCount(count), "absmax too short")
    guard count > 0, let from = values.baseAddress, let codes = codes.baseAddress,
      let absmax = absmax.baseAddress
    else { return }
    let finite = unsafe nibble_quantize(
      from, type.kernelValue, count, code.kernelValue, blockSize,
      codes.assumingMemoryBound(to: UInt8.self), absmax)
    guard finite == count else {
      throw unsafe NonFinite(index: finite, value: Float(Reference.load(values, finite, as: type)))
    }
  }

  /// The overload for unsafe buffers; those read and those written must not overlap.
  package func dequantize(
    codes: UnsafeRawBufferPointer, absmax: UnsafeBufferPointer<Float>, elements: Range<Int>,
    into output: UnsafeMutableRawBufferPointer, as type: FloatType
  ) {
    precondition(elements.lowerBound >= 0)
    precondition(codes.count >= packedByteCount(elements.upperBound), "codes too short")
    precondition(absmax.count >= blockCount(elements.upperBound), "absmax too short")
    precondition(output.count / type.byteCount >= elements.count, "output too short")
    guard !elements.isEmpty, let codes = codes.baseAddress, let absmax = absmax.baseAddress,
      let output = output.baseAddress
    else { return }
    unsafe nibble_dequantize(
      codes.assumingMemoryBound(to: UInt8.self), absmax, elements.lowerBound, elements.count,
      code.kernelValue, blockSize, output, type.kernelValue)
  }
}
