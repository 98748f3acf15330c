import Kernels

/// Double quantization of bitsandbytes: the absmax values of a tensor, less their mean, are quantized
/// themselves, to 8 bits in blocks of 256.
public enum DoubleQuantization {
  /// Absmax values per block; the trainers accept no other.
  public static let blockSize = 256

  /// Blocks, and so `nestedAbsmax` values, of `count` absmax values.
  public static func blockCount(_ count: Int) -> Int { count / blockSize + (count % blockSize == 0 ? 0 : 1) }

  /// The values of the 8-bit codes, relative to the block's maximum: the signed dynamic map of bitsandbytes'
  /// `create_dynamic_map()`, by rising value, stored as `nested_quant_map`.
  ///
  /// Seven decades; the one of 10^-d is cut into 2^(6-d) equal parts of [0.1, 1], whose middles are
  /// taken with both signs. Zero and one complete it.
  public static let map = map(isFused: true)

  /// The same where `create_dynamic_map()` runs on a processor that rounds each product before it adds it, such as
  /// x86-64 without FMA: 42 values differ in the last bits. Files from there have it.
  public static let mapOfProductsRounded = map(isFused: false)

  private static func map(isFused: Bool) -> [Float] {
    let decades: [Float] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1]
    var values: [Float] = [0, 1]
    for (power, decade) in decades.enumerated() {
      let boundaries = evenlySpaced(from: 0.1, to: 1, count: 1 << power + 1, isFused: isFused)
      for (low, high) in zip(boundaries, boundaries.dropFirst()) {
        let middle = decade * ((low + high) / 2)
        values += [middle, -middle]
      }
    }
    return values.sorted()
  }

  /// The overload for unsafe buffers.
  package static func offset(_ absmax: UnsafeBufferPointer<Float>) -> Float {
    guard !absmax.isEmpty else { return 0 }
    // Four partial sums hide the latency of addition; which value goes where is fixed.
    var sums = SIMD4<Double>(repeating: 0)
    let whole = absmax.count & ~3
    for index in stride(from: 0, to: whole, by: 4) {
      unsafe sums += SIMD4(
        Double(absmax[index]), Double(absmax[index + 1]), Double(absmax[index + 2]), Double(absmax[index + 3]))
    }
    var sum = (sums[0] + sums[1]) + (sums[2] + sums[3])
    for index in whole..<absmax.count { unsafe sum += Double(absmax[index]) }
    return Float(sum / Double(absmax.count))
  }

  /// The overload for unsafe buffers; those read and those written must not overlap.
  package static func quantize(
    _ absmax: UnsafeBufferPointer<Float>, offset: Float, codes: UnsafeMutableBufferPointer<UInt8>,
    nestedAbsmax: UnsafeMutableBufferPointer<Float>
  ) {
    precondition(codes.count >= absmax.count, "codes too short")
    precondition(nestedAbsmax.count >= blockCount(absmax.count), "nested absmax too short")
    guard let from = absmax.baseAddress, let to = codes.baseAddress, let nested = nestedAbsmax.baseAddress
    else { return }
    unsafe codesByPosition.withUnsafeBufferPointer { table in
      guard let table = table.baseAddress else { return }
      unsafe nibble_quantize_absmax(from, absmax.count, offset, table, to, nested)
    }
  }

  /// The overload for unsafe buffers; those read and those written must not overlap.
  package static func dequantize(
    codes: UnsafeBufferPointer<UInt8>, nestedAbsmax: UnsafeBufferPointer<Float>, map: [Float] = map,
    offset: Float, blocks: Range<Int>, into absmax: UnsafeMutableBufferPointer<Float>
  ) {
    precondition(blocks.lowerBound >= 0 && codes.count >= blocks.upperBound, "codes too short")
    precondition(nestedAbsmax.count >= blockCount(blocks.upperBound), "nested absmax too short")
    precondition(absmax.count >= blocks.count, "absmax too short")
    precondition(map.count == 256, "the nested map has 256 values")
    for block in blocks {
      // Two roundings: bitsandbytes multiplies and adds in separate passes.
      let product = unsafe map[Int(codes[block])] * nestedAbsmax[block / blockSize]
      unsafe absmax[block - blocks.lowerBound] = product + offset
    }
  }

  /// bitsandbytes finds the code by a table over [-1, 1] cut into 65535 steps, so that "nearest" is
  /// decided for the middle of a step, not for the value.
  package static let codesByPosition: [UInt8] = {
    let midpoints = zip(map, map.dropFirst()).map { 0.5 * ($0 + $1) }
    var code = 0
    return (0..<65536).map { position in
      let value: Float = -1 + (2 * Float(position)) / 65535
      while code < 255 && midpoints[code] < value { code += 1 }
      return UInt8(code)
    }
  }()

  /// `count` values from `start` to `end` as torch's linspace computes them: each half is counted from its own end, with
  /// a fused multiply-add where the processor has one.
  private static func evenlySpaced(from start: Float, to end: Float, count: Int, isFused: Bool) -> [Float] {
    let step = (end - start) / Float(count - 1)
    func sum(_ value: Float, _ step: Float, _ index: Int) -> Float {
      isFused ? value.addingProduct(step, Float(index)) : value + step * Float(index)
    }
    return (0..<count).map { index in
      index < count / 2 ? sum(start, step, index) : sum(end, -step, count - 1 - index)
    }
  }
}
