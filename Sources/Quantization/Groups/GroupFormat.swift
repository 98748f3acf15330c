/// Quantization of MLX: groups of consecutive values of a row share a scale, and for `affine` a bias.
///
/// Codes, scales and biases are arrays of their own. The codes of a row, [columns], are a stream of bits in
/// which code i takes the bits from `i * bits` on, the lowest of the first byte first; MLX stores it as 32-bit
/// little-endian words, [columns * bits / 32]. Scales and biases are [columns / groupSize].
///
/// The rules are those of `mlx/ops.cpp` and `mlx/backend/cpu/quantized.cpp`, MLX 0.32.4.
public struct GroupFormat: Hashable, Sendable {
  /// How codes stand for values; the raw value is MLX's name in config.json.
  public enum Mode: String, Sendable, CaseIterable {
    /// `x = scale * code + bias`. Scales, which may be negative, and biases have the type of the values.
    case affine
    /// `x = 2^(scale - 127) * level`: codes are numbers with a sign, two bits of exponent and one of mantissa
    /// (E2M1), scales are bytes (E8M0), and there are no biases.
    case mxfp4
  }

  public let mode: Mode
  /// Bits of one code.
  public let bits: Int
  /// Values that share a scale.
  public let groupSize: Int

  /// Nil for what MLX does not know.
  public init?(mode: Mode = .affine, bits: Int, groupSize: Int) {
    switch mode {
    case .affine: guard Self.bits.contains(bits), Self.groupSizes.contains(groupSize) else { return nil }
    case .mxfp4: guard bits == 4, groupSize == 32 else { return nil }
    }
    self.mode = mode
    self.bits = bits
    self.groupSize = groupSize
  }

  /// The widths of affine codes.
  public static let bits = [2, 3, 4, 5, 6, 8]
  /// The sizes of affine groups.
  public static let groupSizes = [32, 64, 128]

  public var hasBiases: Bool { mode == .affine }

  /// The number of groups, and so of scales, of `elements` values, which fill whole groups.
  public func groupCount(_ elements: Int) -> Int { elements / groupSize }

  /// Bytes of the codes of `elements` values, which fill whole groups.
  public func packedByteCount(_ elements: Int) -> Int { elements / 8 * bits }

  /// Bytes of the scales of `elements` values of `type`.
  public func scaleByteCount(_ elements: Int, as type: FloatType) -> Int {
    groupCount(elements) * (mode == .affine ? type.byteCount : 1)
  }

  /// Bytes of the biases of `elements` values of `type`; 0 where there are none.
  public func biasByteCount(_ elements: Int, as type: FloatType) -> Int {
    hasBiases ? scaleByteCount(elements, as: type) : 0
  }
}
