import GGUF

extension MixtureState {
  /// The schemes of about two bits and less.
  static let lowBit: [GGUFScheme] = [.iq1_s, .iq1_m, .iq2_xxs, .iq2_xs, .iq2_s, .iq2_m]

  func defaultOutput(_ tensor: GGUFTensor) -> GGMLType {
    let type = scheme.defaultType
    if scheme == .mxfp4 || isFalcon || tensor.columns % type.valuesPerBlock != 0 { return .q8_0 }
    if Self.lowBit.contains(scheme) || scheme == .iq3_xxs { return .q5_K }
    return type == .q8_0 ? .q8_0 : .q6_K
  }

  var embeddingType: GGMLType {
    switch scheme {
    case .iq1_s, .iq1_m, .iq2_xxs, .iq2_xs: .q2_K
    case .iq2_s, .iq2_m, .iq3_xxs: .iq3_s
    case .tq1_0, .tq2_0, .q2_0: .q4_K
    default: scheme.defaultType
    }
  }

  /// A value tensor, of the scheme's own kind: none of the low bit ones.
  var valueType: GGMLType {
    var type = valueTypeByScheme
    if model.is70B, type == .q3_K || type == .q4_K { type = .q5_K }
    // Small beside the experts.
    return hasEightExperts ? .q8_0 : type
  }

  private var valueTypeByScheme: GGMLType {
    let isFavored = Self.isFavored(values, of: valueCount)
    return switch scheme {
    case .q2_k: sharesKeys ? .q4_K : .q3_K
    case .q2_k_s where sharesKeys: .q4_K
    case .iq3_xxs: sharesKeys ? .q4_K : hasImportance ? .iq3_xxs : .iq3_s
    case .iq3_xs where sharesKeys, .iq3_s where sharesKeys: .q4_K
    case .iq3_m: .q4_K
    case .q3_k_m: values < 2 ? .q5_K : .q4_K
    case .q3_k_l: .q5_K
    case .iq4_nl where sharesKeys, .iq4_xs where sharesKeys: .q5_K
    case .q4_k_m where isFavored, .q5_k_m where isFavored: .q6_K
    case .q4_k_s where values < 4: .q5_K
    default: scheme.defaultType
    }
  }

  var keyType: GGMLType { hasEightExperts ? .q8_0 : queryType }

  var queryType: GGMLType {
    switch scheme {
    case .iq3_xs: .iq3_xxs
    case .iq3_xxs: .iq2_s
    default: scheme.defaultType
    }
  }

  func upType(layer: Int, of count: Int) -> GGMLType {
    scheme == .iq3_xs && layer >= count / 8 && layer < 7 * count / 8 ? .iq3_xxs : scheme.defaultType
  }

  func downType(layer: Int, of count: Int) -> GGMLType {
    let isEarly = layer < count / 8
    let isFavored = Self.isFavored(layer, of: count)
    return switch scheme {
    case .q2_k: .q3_K
    case .q2_k_s where isEarly: .q4_K
    case .iq3_xxs where !hasImportance: isEarly ? .q4_K : .q3_K
    case .q3_k_m: layer < count / 16 ? .q5_K : !isFalcon || isFavored ? .q4_K : .q3_K
    case .iq3_m where isEarly || hasEightExperts && isFavored: .q4_K
    case .q3_k_l: isFalcon ? .q4_K : .q5_K
    case .q4_k_m where isFalcon: layer < count / 16 ? .q6_K : isFavored ? .q5_K : .q4_K
    case .q4_k_m where isFavored, .q5_k_m where isFavored: .q6_K
    case .iq4_nl where isEarly && !hasImportance, .iq4_xs where isEarly && !hasImportance: .q5_K
    case .q4_k_s where isEarly && !isFalcon: .q5_K
    // Weighted by an imatrix, the first layers can come out wrong without a minimum of their own.
    case .q4_0 where isEarly && hasImportance: .q4_1
    case .q5_0 where isEarly && hasImportance: .q5_1
    default: scheme.defaultType
    }
  }

  var attentionOutputType: GGMLType {
    if isFalcon { return scheme == .q3_k_l ? .q4_K : scheme.defaultType }
    if hasEightExperts {
      return switch scheme {
      case .q2_k, .q3_k_s, .q3_k_m, .q4_k_s, .q4_k_m, .iq3_xxs, .iq3_xs, .iq3_s, .iq3_m, .iq4_nl, .iq4_xs: .q5_K
      default: scheme.defaultType
      }
    }
    return switch scheme {
    case .q2_k: .q3_K
    case .iq3_xxs: .iq3_s
    case .q3_k_m, .iq3_m: .q4_K
    case .q3_k_l: .q5_K
    default: scheme.defaultType
    }
  }

  /// Among the low bit schemes.
  mutating func lowBitType(_ role: TensorRole) -> GGMLType {
    let isTwoAndAHalf = scheme == .iq2_s || scheme == .iq2_m
    switch role {
    case .value, .queryKeyValue, .keyValue:
      return sharesKeys || model.experts >= 4 ? .q4_K : isTwoAndAHalf ? .iq3_s : .q2_K
    case .key where hasEightExperts: return .q4_K
    case .down:
      defer { downs += 1 }
      return downs < (model.layers ?? 0) / 8 ? (isTwoAndAHalf ? .iq3_s : .q2_K) : scheme.defaultType
    case .attentionOutput:
      if hasEightExperts { return .q5_K }
      if isTwoAndAHalf { return .iq3_s }
      return scheme == .iq1_s || scheme == .iq1_m ? .iq2_xxs : scheme.defaultType
    default: return scheme.defaultType
    }
  }
}
