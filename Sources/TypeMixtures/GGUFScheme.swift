public import GGUF

/// A scheme of quantization: a type for most tensors of a model, and a mixture of others around it. The names are
/// those of `llama-quantize`, in lower case.
// swift-format-ignore: AlwaysUseLowerCamelCase
public enum GGUFScheme: String, Sendable, CaseIterable {
  case f32, bf16, f16
  case q8_0, q6_k
  case q5_k_m, q5_k_s, q5_1, q5_0
  case q4_k_m, q4_k_s, q4_1, q4_0
  case iq4_nl, iq4_xs
  case mxfp4 = "mxfp4_moe"
  case q3_k_l, q3_k_m, q3_k_s
  case iq3_m, iq3_s, iq3_xs, iq3_xxs
  case q2_k, q2_k_s, q2_0
  case iq2_m, iq2_s, iq2_xs, iq2_xxs
  case tq2_0, tq1_0
  case iq1_m, iq1_s
  case q1_0

  /// - Parameter name: in any case; also `q3_k`, `q4_k` and `q5_k` for the middle one of each, `mxfp4`, and the number
  ///   in `general.file_type`.
  public init?(named name: String) {
    let name = name.lowercased()
    switch name {
    case "q3_k": self = .q3_k_m
    case "q4_k": self = .q4_k_m
    case "q5_k": self = .q5_k_m
    case "mxfp4": self = .mxfp4
    default:
      let number = UInt32(name)
      guard let match = Self.allCases.first(where: { $0.rawValue == name || $0.fileType == number }) else { return nil }
      self = match
    }
  }

  /// The number in `general.file_type`.
  public var fileType: UInt32 { row.fileType }

  /// The type of the tensors that have no reason for another one.
  public var defaultType: GGMLType { row.type }

  /// A description in a few words, for a list of schemes.
  public var summary: String { row.summary }

  /// The bits per weight of the default type.
  public var bitsPerWeight: Double {
    Double(8 * defaultType.bytesPerBlock) / Double(defaultType.valuesPerBlock)
  }

  /// Sizes in GB and the increase in perplexity over f16 are llama.cpp's, measured on Llama 3 8B.
  private var row: (fileType: UInt32, type: GGMLType, summary: String) {
    switch self {
    case .f32: (0, .f32, "32 bits")
    case .f16: (1, .f16, "16 bits, IEEE half precision")
    case .bf16: (32, .bf16, "16 bits, bfloat16")
    case .q4_0: (2, .q4_0, "4.34 GB, perplexity +0.4685")
    case .q4_1: (3, .q4_1, "4.78 GB, perplexity +0.4511")
    case .q8_0: (7, .q8_0, "7.96 GB, perplexity +0.0026")
    case .q5_0: (8, .q5_0, "5.21 GB, perplexity +0.1316")
    case .q5_1: (9, .q5_1, "5.65 GB, perplexity +0.1062")
    case .q2_k: (10, .q2_K, "2.96 GB, perplexity +3.5199")
    case .q3_k_s: (11, .q3_K, "3.41 GB, perplexity +1.6321")
    case .q3_k_m: (12, .q3_K, "3.74 GB, perplexity +0.6569")
    case .q3_k_l: (13, .q3_K, "4.03 GB, perplexity +0.5562")
    case .q4_k_s: (14, .q4_K, "4.37 GB, perplexity +0.2689")
    case .q4_k_m: (15, .q4_K, "4.58 GB, perplexity +0.1754")
    case .q5_k_s: (16, .q5_K, "5.21 GB, perplexity +0.1049")
    case .q5_k_m: (17, .q5_K, "5.33 GB, perplexity +0.0569")
    case .q6_k: (18, .q6_K, "6.14 GB, perplexity +0.0217")
    case .iq2_xxs: (19, .iq2_xxs, "2.06 bits per weight")
    case .iq2_xs: (20, .iq2_xs, "2.31 bits per weight")
    case .q2_k_s: (21, .q2_K, "2.96 GB, perplexity +3.1836, needs an imatrix")
    case .iq3_xs: (22, .iq3_s, "3.3 bits per weight")
    case .iq3_xxs: (23, .iq3_xxs, "3.06 bits per weight")
    case .iq1_s: (24, .iq1_s, "1.56 bits per weight")
    case .iq4_nl: (25, .iq4_nl, "4.5 bits per weight, non-linear")
    case .iq3_s: (26, .iq3_s, "3.44 bits per weight")
    case .iq3_m: (27, .iq3_s, "3.66 bits per weight")
    case .iq2_s: (28, .iq2_xs, "2.5 bits per weight")
    case .iq2_m: (29, .iq2_s, "2.7 bits per weight")
    case .iq4_xs: (30, .iq4_xs, "4.25 bits per weight, non-linear")
    case .iq1_m: (31, .iq1_m, "1.75 bits per weight")
    case .tq1_0: (36, .tq1_0, "1.69 bits per weight, ternary")
    case .tq2_0: (37, .tq2_0, "2.06 bits per weight, ternary")
    case .mxfp4: (38, .mxfp4, "experts in 4.25 bits per weight, the rest in q8_0")
    case .q1_0: (40, .q1_0, "1.125 bits per weight")
    case .q2_0: (41, .q2_0, "2.25 bits per weight")
    }
  }
}
