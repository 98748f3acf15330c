package import Quantization

/// The tensors that stand beside `P.weight`, by the end of their names.
package enum Companion: Sendable, Hashable, CaseIterable {
  case absmax, quantMap, nestedAbsmax, nestedQuantMap
  case nf4State, fp4State

  package var suffix: String {
    switch self {
    case .absmax: ".absmax"
    case .quantMap: ".quant_map"
    case .nestedAbsmax: ".nested_absmax"
    case .nestedQuantMap: ".nested_quant_map"
    case .nf4State: ".quant_state.bitsandbytes__nf4"
    case .fp4State: ".quant_state.bitsandbytes__fp4"
    }
  }

  package static func quantState(_ code: FourBitCode) -> Companion { code == .nf4 ? .nf4State : .fp4State }
}
