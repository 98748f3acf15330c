package import GGUF

extension GGMLType {
  /// The type that replaces one whose blocks do not fit into a row: one of a smaller block, or f16. nil when there is
  /// none.
  package func fallback(row: Int) -> GGMLType? {
    let smaller: GGMLType
    switch self {
    case .iq1_s, .iq1_m, .iq2_xxs, .iq2_xs, .iq2_s, .iq3_xxs, .iq3_s, .iq4_xs: smaller = .iq4_nl
    case .q2_0, .q2_K, .q3_K, .tq1_0, .tq2_0: smaller = .q4_0
    case .q4_K: smaller = .q5_0
    case .q5_K: smaller = .q5_1
    case .q6_K: smaller = .q8_0
    default:
      guard valuesPerBlock <= 32 else { return nil }
      smaller = self
    }
    return row % smaller.valuesPerBlock == 0 ? smaller : .f16
  }
}
