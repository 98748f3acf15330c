/// How compressed-tensors stores a matrix in few bits: codes, and a scale for each block of it.
///
/// The rules are those of `calculate_qparams`, `generate_gparam` and the compressors of compressed-tensors 0.20.1 for
/// symmetric weights; but for `nearestMXFP4`.
public struct ScaledFormat: Hashable, Sendable {
  /// What codes are, and what scales are.
  public enum Kind: Sendable, CaseIterable {
    /// E4M3; scales have the type of the values.
    case fp8
    /// Whole numbers from -8 to 7, each stored 8 higher; scales have the type of the values.
    case int4
    /// E2M1; scales are powers of two (E8M0).
    case mxfp4
    /// E2M1; scales are E4M3, and divided by one number for the whole matrix.
    case nvfp4
    /// As `mxfp4`, but zeros have signs, and of two scales the one is taken by which the values come back with the
    /// smaller squared error: that of the OCP's rule, of which the largest magnitude is from 4 to below 8 times as much,
    /// or twice that. Values that were in MXFP4 come back as they were. Where both are exact, the one of the OCP's rule is
    /// taken if its largest code is 4; if it is 6, the other, which converters give that round scales up.
    case nearestMXFP4
  }

  public let kind: Kind
  /// Rows that share a scale.
  public let blockRows: Int
  /// Values of a row that share a scale; nil for all.
  public let blockColumns: Int?

  public static let fp8Channel = ScaledFormat(kind: .fp8, blockRows: 1, blockColumns: nil)
  public static let fp8Block = ScaledFormat(kind: .fp8, blockRows: 128, blockColumns: 128)
  public static let mxfp4 = ScaledFormat(kind: .mxfp4, blockRows: 1, blockColumns: 32)
  public static let nearestMXFP4 = ScaledFormat(kind: .nearestMXFP4, blockRows: 1, blockColumns: 32)
  public static let nvfp4 = ScaledFormat(kind: .nvfp4, blockRows: 1, blockColumns: 16)

  /// Nil for a size that is not in `groupSizes`.
  public static func int4(groupSize: Int) -> ScaledFormat? {
    groupSizes.contains(groupSize) ? ScaledFormat(kind: .int4, blockRows: 1, blockColumns: groupSize) : nil
  }

  /// The sizes of groups of whole numbers.
  public static let groupSizes = [32, 64, 128]

  /// Bits of a code.
  public var bits: Int { kind == .fp8 ? 8 : 4 }

  /// Whether rows of so many values can be stored: those of 4 bits are whole groups.
  public func holds(columns: Int) -> Bool { bits == 8 || columns % (blockColumns ?? columns) == 0 }

  /// The rows and columns of the scales of a matrix.
  public func scaleShape(rows: Int, columns: Int) -> (rows: Int, columns: Int) {
    guard let blockColumns else { return (rows, 1) }
    return ((rows + blockRows - 1) / blockRows, (columns + blockColumns - 1) / blockColumns)
  }

  /// Bytes of a scale of values of `type`.
  public func scaleByteCount(as type: FloatType) -> Int {
    switch kind {
    case .fp8, .int4: type.byteCount
    case .mxfp4, .nearestMXFP4, .nvfp4: 1
    }
  }

  /// The number by which the scales of a whole matrix are multiplied: 448 · 6 times the reciprocal of its largest
  /// magnitude, both rounded to the type of its values, as torch divides a number by a tensor.
  ///
  /// Where that overflows float16, compressed-tensors takes 1, and scales lose their precision or vanish; here nothing
  /// is rounded then.
  ///
  /// - Parameter largest: the largest magnitude of the matrix, or of all that are computed together with it.
  public static func globalScale(largest: Float, as type: FloatType) -> Float {
    let least = type == .f16 ? Float(sign: .plus, exponent: -14, significand: 1) : Float.leastNormalMagnitude
    let bounded = max(largest, least)
    let reciprocal = Float(Reference.rounded(Double(1 / bounded), as: type))
    let scale = Float(Reference.rounded(Double(2688 * reciprocal), as: type))
    if scale.isFinite { return scale }
    return (2688 / bounded).isFinite ? 2688 / bounded : 1
  }
}
