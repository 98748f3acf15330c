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
  /// Quantizes a piece of a tensor, bit-identical to bitsandbytes 0.50 on the CPU.
  ///
  /// A piece starts on a block boundary, and only the tensor's last piece may end off one, so that the
  /// result does not depend on how a tensor is cut. bitsandbytes treats a last, partial block in its
  /// own way: it divides by absmax where other blocks multiply by its reciprocal, and stores at least
  /// 1e-38 for absmax.
  ///
  /// - Parameters:
  ///   - values: a whole number of `type`.
  ///   - codes: room for `packedByteCount`; the low nibble after an odd number of values is `zeroCode`.
  ///   - absmax: room for `blockCount`.
  /// - Throws: the first value that is NaN or infinite; the outputs are then unspecified.
  public func quantize(
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

  /// Dequantizes a range of values, bit-identical to bitsandbytes 0.50 on the CPU.
  ///
  /// Products that are subnormal in `type` are rounded to nearest even like all others; bitsandbytes
  /// does so too, except for bf16 on processors with AVX512-BF16, where it flushes them to zero. FP4's
  /// second zero, code 8, is 0 as in `levels` (bitsandbytes: 0 in its vector path, else -0).
  ///
  /// - Parameters:
  ///   - codes, absmax: start at element 0 and reach at least to `elements.upperBound`. They are those
  ///     of a tensor, or of a piece of one that starts on a block boundary.
  ///   - output: room for `elements.count` values of `type`.
  public func dequantize(
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
