/// How a plain weight is stored. Always little-endian, at any alignment.
public enum FloatType: String, Sendable, CaseIterable {
  case bf16, f16, f32

  /// Bytes of one value.
  public var byteCount: Int {
    switch self {
    case .bf16, .f16: 2
    case .f32: 4
    }
  }

  /// The attribute of the `torch` module.
  public var torchName: String {
    switch self {
    case .bf16: "bfloat16"
    case .f16: "float16"
    case .f32: "float32"
    }
  }

  public init?(torchName: String) {
    guard let type = Self.allCases.first(where: { $0.torchName == torchName }) else { return nil }
    self = type
  }

  /// The names that torch has for them.
  public static let names = allCases.map(\.torchName)

  /// The choices of an option that may keep each tensor's own type.
  public static let namesToKeep = ["keep"] + names

  /// The value of `nibble_float_type` in the kernels' header.
  var kernelValue: Int32 {
    switch self {
    case .bf16: 0
    case .f16: 1
    case .f32: 2
    }
  }
}

extension FloatType? {
  /// One of `FloatType.namesToKeep`.
  public var choice: String { self?.torchName ?? "keep" }
}
