/// The type of a GGUF tensor, by its number in the file: one row for each that ggml knows, named as ggml names it.
// swift-format-ignore: AlwaysUseLowerCamelCase
public enum GGMLType: UInt32, Sendable, CaseIterable {
  case f32 = 0
  case f16 = 1
  case q4_0 = 2
  case q4_1 = 3
  case q5_0 = 6
  case q5_1 = 7
  case q8_0 = 8
  case q8_1 = 9
  case q2_K = 10
  case q3_K = 11
  case q4_K = 12
  case q5_K = 13
  case q6_K = 14
  case q8_K = 15
  case iq2_xxs = 16
  case iq2_xs = 17
  case iq3_xxs = 18
  case iq1_s = 19
  case iq4_nl = 20
  case iq3_s = 21
  case iq2_s = 22
  case iq4_xs = 23
  case i8 = 24
  case i16 = 25
  case i32 = 26
  case i64 = 27
  case f64 = 28
  case iq1_m = 29
  case bf16 = 30
  case tq1_0 = 34
  case tq2_0 = 35
  case mxfp4 = 39
  case nvfp4 = 40
  case q1_0 = 41
  case q2_0 = 42

  /// Values of one block along a row, and its bytes.
  private var row: (values: Int, bytes: Int) {
    switch self {
    case .f32, .i32: (1, 4)
    case .f16, .bf16, .i16: (1, 2)
    case .i8: (1, 1)
    case .i64, .f64: (1, 8)
    case .q1_0: (128, 18)
    case .q2_0: (64, 18)
    case .q4_0: (32, 18)
    case .q4_1: (32, 20)
    case .q5_0: (32, 22)
    case .q5_1: (32, 24)
    case .q8_0: (32, 34)
    case .q8_1: (32, 36)
    case .q2_K: (256, 84)
    case .q3_K: (256, 110)
    case .q4_K: (256, 144)
    case .q5_K: (256, 176)
    case .q6_K: (256, 210)
    case .q8_K: (256, 292)
    case .iq1_s: (256, 50)
    case .iq1_m: (256, 56)
    case .iq2_xxs: (256, 66)
    case .iq2_xs: (256, 74)
    case .iq2_s: (256, 82)
    case .iq3_xxs: (256, 98)
    case .iq3_s: (256, 110)
    case .iq4_nl: (32, 18)
    case .iq4_xs: (256, 136)
    case .tq1_0: (256, 54)
    case .tq2_0: (256, 66)
    case .mxfp4: (32, 17)
    case .nvfp4: (64, 36)
    }
  }

  public var valuesPerBlock: Int { row.values }
  public var bytesPerBlock: Int { row.bytes }

  /// The name as ggml prints it: `f16`, `q4_K`, `iq4_xs`.
  public var name: String { String(describing: self) }

  /// - Parameter name: in any case.
  public init?(name: String) {
    let wanted = name.lowercased()
    guard let match = Self.allCases.first(where: { $0.name.lowercased() == wanted }) else { return nil }
    self = match
  }

  /// The name of a type that ggml has given up, by its number; nil for a number that never meant anything.
  static func removedName(_ number: UInt32) -> String? {
    switch number {
    case 4: "q4_2"
    case 5: "q4_3"
    case 31: "q4_0_4_4"
    case 32: "q4_0_4_8"
    case 33: "q4_0_8_8"
    case 36: "iq4_nl_4_4"
    case 37: "iq4_nl_4_8"
    case 38: "iq4_nl_8_8"
    default: nil
    }
  }
}
