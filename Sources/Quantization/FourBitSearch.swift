import Kernels

/// The search for the scale of each block that leaves the least squared error, in place of the block's largest
/// magnitude; the file stays one that any loader of bitsandbytes multiplies out.
///
/// Loaders compute level times scale, so a scale may be anything, negative too: the levels of NF4 are not symmetric.
/// Ten ratios from 0.76 to 1.12 of the largest magnitude are tried with either sign, then five around the best of them;
/// in double quantization the three that can be stored next to it, relative to the greatest scale of 256 blocks and with
/// an offset of 0. Codes are chosen for the scale as it is read back. Errors are compared in whole numbers of 16 bits,
/// 2^-14 of the largest magnitude, so that every machine finds the same.
public struct FourBitSearch: Sendable {
  /// Whether scales may be negative.
  public var isSigned: Bool
  /// What a squared error counts in each column; nil for all alike.
  public var weights: ColumnWeights?

  public init(isSigned: Bool = true, weights: ColumnWeights? = nil) {
    self.isSigned = isSigned
    self.weights = weights
  }
}

/// What a squared error counts in each column of a weight, relative to the mean.
public struct ColumnWeights: Sendable {
  public let columns: Int
  /// Their roots, and as many again as a block has values, so that one that begins in the last column finds its own.
  let repeated: [Float]

  /// - Parameters:
  ///   - values: one for each column, finite and not negative.
  ///   - blockSize: of the format.
  /// - Returns: nil when a value is negative or not finite, or none is above 0.
  public init?(_ values: [Float], blockSize: Int) {
    let sum = values.reduce(0.0) { $0 + Double($1) }
    guard sum > 0, sum.isFinite, values.allSatisfy({ $0 >= 0 && $0.isFinite }) else { return nil }
    let mean = sum / Double(values.count)
    let relative = values.map { Float((Double($0) / mean).squareRoot()) }
    columns = values.count
    repeated = (0..<values.count + blockSize).map { relative[$0 % values.count] }
  }
}

extension FourBitFormat {
  /// Quantizes values with searched scales.
  ///
  /// - Parameters:
  ///   - values: of `type`; from the first of a block on, where scales are stored in 8 bits the first of 256 blocks.
  ///   - column: of the first value.
  ///   - codes: room for `packedByteCount`.
  ///   - scales: room for one of each block; with `scaleCodes` one for each 256.
  ///   - scaleCodes: room for one of each block, positions in `DoubleQuantization.map`; nil for scales in 32 bits.
  /// - Throws: the first value that is NaN or infinite. The outputs are then unspecified.
  package func quantize(
    _ values: UnsafeRawBufferPointer, as type: FloatType, search: FourBitSearch, column: Int = 0,
    codes: UnsafeMutableRawBufferPointer, scales: UnsafeMutableBufferPointer<Float>,
    scaleCodes: UnsafeMutableBufferPointer<UInt8>?
  ) throws(NonFinite) {
    precondition(values.count % type.byteCount == 0, "half a value")
    let count = values.count / type.byteCount
    let blocks = blockCount(count)
    precondition(codes.count >= packedByteCount(count), "codes too short")
    let isNested = unsafe scaleCodes != nil
    if let scaleCodes = unsafe scaleCodes { precondition(scaleCodes.count >= blocks, "codes of scales too short") }
    precondition(scales.count >= (isNested ? DoubleQuantization.blockCount(blocks) : blocks), "scales too short")
    guard count > 0, let from = values.baseAddress, let to = codes.baseAddress, let scales = scales.baseAddress
    else { return }
    let map = isNested ? DoubleQuantization.map : []
    let weights = search.weights?.repeated ?? []
    let columns = search.weights?.columns ?? 1
    let finite = unsafe map.withUnsafeBufferPointer { map in
      unsafe weights.withUnsafeBufferPointer { weights in
        var options = unsafe nibble_search_options(
          code: code.kernelValue, is_signed: search.isSigned ? 1 : 0, block_size: blockSize,
          roots: weights.isEmpty ? nil : weights.baseAddress, columns: columns, first_column: column % columns,
          map: map.isEmpty ? nil : map.baseAddress)
        return unsafe nibble_search_four_bit(
          from, type.kernelValue, count, &options, to.assumingMemoryBound(to: UInt8.self), scales,
          scaleCodes?.baseAddress)
      }
    }
    guard finite == blocks else {
      let block = finite * blockSize..<min((finite + 1) * blockSize, count)
      throw unsafe Reference.refused(group: block, of: values, as: type)
    }
  }
}
