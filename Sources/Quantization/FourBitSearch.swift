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
  public enum Kind: Sendable, CaseIterable {
    /// Scales of both signs.
    case signed
    case positive
    /// The largest magnitude, and nothing else, for what is made good in later columns.
    case maximum
  }

  public var kind: Kind
  /// What a squared error counts in each column; nil for all alike.
  public var weights: ColumnWeights?

  public init(_ kind: Kind = .signed, weights: ColumnWeights? = nil) {
    self.kind = kind
    self.weights = weights
  }
}

extension FourBitSearch.Kind {
  /// The value of `nibble_scale_kind` in the kernels' header.
  var kernelValue: Int32 {
    switch self {
    case .signed: 0
    case .positive: 1
    case .maximum: 2
    }
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

  private init(roots: [Float]) { (columns, repeated) = (roots.count, roots) }

  /// Those of some columns.
  package func part(_ range: Range<Int>) -> ColumnWeights { ColumnWeights(roots: Array(repeated[range])) }
}

extension FourBitFormat {
  /// The greatest scale whose product with a level a type can hold.
  package static func greatestScale(of type: FloatType) -> Float {
    switch type {
    case .bf16: 0x1.FEp127
    case .f16: 65504
    case .f32: .greatestFiniteMagnitude
    }
  }

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
          code: code.kernelValue, kind: search.kind.kernelValue, block_size: blockSize,
          roots: weights.isEmpty ? nil : weights.baseAddress, columns: columns, first_column: column % columns,
          map: map.isEmpty ? nil : map.baseAddress, given: nil)
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

extension FourBitFormat {
  /// The best scales of whole blocks that can be stored where what they are relative to is known.
  ///
  /// - Parameters:
  ///   - values: whole blocks, finite.
  ///   - column: of the first value of every block.
  ///   - given: for each block the greatest scale of its group.
  /// - Returns: for each block a position in `DoubleQuantization.map`.
  package func storedScales(
    _ values: [Float], search: FourBitSearch, column: Int, given: [Float]
  ) -> [UInt8] {
    precondition(values.count % blockSize == 0 && given.count >= values.count / blockSize, "part of a block")
    // Every block begins in the same column: as many as a block has are all there are.
    let roots = search.weights.map { Array($0.repeated[column..<column + blockSize]) }
    let twice = roots.map { $0 + $0 } ?? []
    var scaleCodes = [UInt8](repeating: 0, count: values.count / blockSize)
    let map = DoubleQuantization.map
    unsafe map.withUnsafeBufferPointer { map in
      unsafe twice.withUnsafeBufferPointer { twice in
        unsafe given.withUnsafeBufferPointer { given in
          unsafe values.withUnsafeBufferPointer { values in
            unsafe scaleCodes.withUnsafeMutableBufferPointer { scaleCodes in
              var options = unsafe nibble_search_options(
                code: code.kernelValue, kind: search.kind.kernelValue, block_size: blockSize,
                roots: twice.isEmpty ? nil : twice.baseAddress, columns: blockSize, first_column: 0,
                map: map.baseAddress, given: given.baseAddress)
              _ = unsafe nibble_search_four_bit(
                values.baseAddress, FloatType.f32.kernelValue, values.count, &options, nil, nil, scaleCodes.baseAddress)
            }
          }
        }
      }
    }
    return scaleCodes
  }

  /// Quantizes columns one after the other, what each loses made good in those behind it.
  ///
  /// - Parameters:
  ///   - matrix: column by column, each of `rows` values, a multiple of 16; from `first` on `count` are quantized.
  ///   - factor: the upper factor of the inverse of the inputs' correlations, row by row, as many as `matrix` has columns.
  ///   - scales: one for each row.
  ///   - codes: of the columns that are quantized, one byte each.
  ///   - errors: theirs, over the factor's diagonal.
  package func feedback(
    _ matrix: inout [Float], rows: Int, first: Int, count: Int, factor: [Float], scales: [Float],
    codes: inout [UInt8], errors: inout [Float]
  ) {
    let columns = matrix.count / rows
    precondition(rows % 16 == 0 && factor.count == columns * columns && first + count <= columns, "sizes differ")
    precondition(scales.count >= rows && codes.count >= rows * count && errors.count >= rows * count, "no room")
    unsafe matrix.withUnsafeMutableBufferPointer { matrix in
      unsafe factor.withUnsafeBufferPointer { factor in
        guard let matrix = matrix.baseAddress, let factor = factor.baseAddress else { return }
        unsafe nibble_feedback_four_bit(
          matrix + first * rows, rows, count, factor + first * columns + first, columns, code.kernelValue, scales,
          &codes, &errors)
      }
    }
  }
}
