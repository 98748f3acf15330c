import Kernels

/// The search for the scale of each group that leaves the least squared error, of those that can be stored; the file stays
/// one that any loader of compressed-tensors multiplies out.
///
/// Whole numbers: loaders compute the number times the scale, which may be negative: -8 has no counterpart. Of 13 ratios
/// of the largest magnitude with either sign, each with the scale that is best for its codes, the best; then twice what is
/// best for the codes that come of it. NVFP4: nine neighbours among the 127 numbers of E4M3, from where the largest
/// magnitude is a little less than a 6 to where it is a 4. MXFP4: four powers of two. Codes are chosen for the scale as it
/// is read back, and the scale without a search is tried first, so that no group loses more than with it.
public struct ScaledSearch: Sendable {
  /// Whether scales may be negative, where the format has such.
  public var allowsNegative: Bool
  /// What a squared error counts in each column; nil for all alike.
  public var weights: ColumnWeights?

  public init(allowsNegative: Bool = true, weights: ColumnWeights? = nil) {
    self.allowsNegative = allowsNegative
    self.weights = weights
  }
}

extension ScaledFormat {
  /// Whether scales can be searched.
  public var isSearchable: Bool {
    switch kind {
    case .int4, .mxfp4, .nvfp4: true
    case .fp8, .nearestMXFP4: false
    }
  }

  /// Quantizes whole rows of a matrix with searched scales; parameters are those of the other `quantize`.
  ///
  /// - Throws: the first value that is NaN or infinite, of the first group that has one. The outputs are then
  ///   unspecified.
  public func quantize(
    _ values: RawSpan, as type: FloatType, columns: Int, globalScale: Float, search: ScaledSearch,
    codes: inout MutableRawSpan, scales: inout MutableRawSpan
  ) throws(NonFinite) {
    let count = values.byteCount / type.byteCount
    guard count > 0 else { return }
    guard isSearchable, let group = blockColumns else { preconditionFailure("a format without a search") }
    precondition(columns > 0 && values.byteCount % (columns * type.byteCount) == 0, "part of a row")
    precondition(holds(columns: columns), "part of a group")
    precondition(search.weights.map { $0.columns == columns } ?? true, "weights of other columns")
    precondition(codes.byteCount >= count / 2, "codes too short")
    precondition(scales.byteCount >= count / group * scaleByteCount(as: type), "scales too short")
    let roots = search.weights?.repeated ?? []
    let done = unsafe roots.withUnsafeBufferPointer { roots in
      var options = unsafe nibble_scaled_search(
        format: kind.kernelValue, is_signed: search.allowsNegative ? 1 : 0, group_size: group, columns: columns,
        global_scale: globalScale, roots: roots.isEmpty ? nil : roots.baseAddress)
      return unsafe values.withUnsafeBytes { values in
        unsafe codes.withUnsafeMutableBytes { codes in
          unsafe scales.withUnsafeMutableBytes { scales in
            unsafe nibble_search_scaled(
              values.baseAddress, type.kernelValue, count, &options,
              codes.assumingMemoryBound(to: UInt8.self).baseAddress, scales.baseAddress)
          }
        }
      }
    }
    guard done == count else {
      throw unsafe values.withUnsafeBytes { unsafe Reference.refused(group: done..<done + group, of: $0, as: type) }
    }
  }
}
