public import Quantization

/// The schemes of MLX by the names that the command line has for them.
public enum MLXScheme: String, Sendable, CaseIterable {
  case q2 = "mlx-q2"
  case q3 = "mlx-q3"
  case q4 = "mlx-q4"
  case q5 = "mlx-q5"
  case q6 = "mlx-q6"
  case q8 = "mlx-q8"
  case mxfp4 = "mlx-mxfp4"

  public static let groupSizes = GroupFormat.groupSizes

  /// - Parameter groupSize: nil for the scheme's own.
  /// - Returns: nil for a size that the scheme does not have.
  public func format(groupSize: Int? = nil) -> GroupFormat? {
    self == .mxfp4
      ? GroupFormat(mode: .mxfp4, bits: 4, groupSize: groupSize ?? 32)
      : GroupFormat(bits: bits, groupSize: groupSize ?? 64)
  }

  private var bits: Int {
    switch self {
    case .q2: 2
    case .q3: 3
    case .q4, .mxfp4: 4
    case .q5: 5
    case .q6: 6
    case .q8: 8
    }
  }

  package static func name(of format: GroupFormat) -> String {
    format.mode == .mxfp4 ? Self.mxfp4.rawValue : "mlx-q\(format.bits)"
  }
}
