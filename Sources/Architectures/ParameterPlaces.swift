public import Tensors

/// The place of a checkpoint's tensor in the model that loads it.
public struct ParameterPlace: Sendable, Equatable {
  /// The parameter's name in the model; the tensor's own name where nothing is known.
  public var parameter: String
  /// The expert, where experts are stored one by one and stacked when they are loaded.
  public var part: Part?
  /// The weight of a `Conv1D`, which lies `[inputs, outputs]`.
  public var isConv1D = false
  /// The weight of a router, which is a parameter of its module and no linear layer.
  public var isRouter = false

  public struct Part: Sendable, Equatable {
    public var expert: Int
    /// Position among the tensors that are put one below the other for each expert, and how many they are.
    public var index: Int
    public var count: Int
  }
}

/// How a model class names and shares its parameters.
public struct ParameterNames: Sendable {
  /// The places of the tensors, one for each, in the order given.
  public var places: [ParameterPlace]
  /// Whether the class is known.
  public var isKnown: Bool
  /// `base_model_prefix`; empty when there is none or the class is not known.
  public var basePrefix: String
  /// Whether the output embedding is the input embedding, by configuration or by the class's default.
  public var tiesEmbeddings: Bool
  /// The path of the output embedding; `lm_head` where nothing is known.
  public var outputEmbedding: String
  /// False for a class that is known and has none, such as a classifier, whatever its configuration ties.
  public var hasOutputEmbedding: Bool

  public init(_ names: [TensorName], configuration: ModelConfiguration) {
    let texts = names.map { Array($0.string.utf8) }
    let declared = configuration.tiesWordEmbeddings ?? configuration.textTiesWordEmbeddings
    guard let rule = configuration.architecture.flatMap({ ClassRule(architecture: $0) }) else {
      places = names.map { ParameterPlace(parameter: $0.string) }
      isKnown = false
      basePrefix = ""
      tiesEmbeddings = declared ?? false
      outputEmbedding = "lm_head"
      hasOutputEmbedding = true
      return
    }
    let placer = Placer(rule: rule, names: texts)
    let lacksPrefix = placer.storesBaseModel(texts)
    places = texts.map { placer.parameterPlace($0, lacksPrefix: lacksPrefix) }
    isKnown = true
    basePrefix = String(decoding: rule.prefix, as: UTF8.self)
    tiesEmbeddings = declared ?? rule.tiesByDefault
    let heads = rule.kinds.filter { $0.value == .outputEmbedding }.map { String(decoding: $0.key, as: UTF8.self) }
    hasOutputEmbedding = !heads.isEmpty
    outputEmbedding = heads.min { ($0.utf8.count, $0) < ($1.utf8.count, $1) } ?? "lm_head"
  }
}

extension Placer {
  /// Whether the names of the checkpoint begin below the base model's prefix.
  fileprivate func storesBaseModel(_ names: [[UInt8]]) -> Bool {
    if rule.prefix.isEmpty { return false }
    return names.contains { name in
      let key = renamed(name).name
      return withBasePrefix(key) == rule.prefix + [UInt8(ascii: ".")] + key
    }
  }

  fileprivate func parameterPlace(_ name: [UInt8], lacksPrefix: Bool) -> ParameterPlace {
    let (renamed, conversion, pattern) = renamed(name)
    if let conversion {
      let key = withBasePrefix(renamed)
      let numbers = name.components.filter(\.isNumber).compactMap { Int(String(decoding: $0, as: UTF8.self)) }
      let isStack = conversion.targets.count == 1 && kind(of: key) == .expert
      guard isStack, let expert = numbers.last, key.components.count(where: \.isNumber) < numbers.count else {
        // Fused, split or permuted: only the name under which it is stored stands for what is stored.
        return ParameterPlace(parameter: String(decoding: name, as: UTF8.self))
      }
      return ParameterPlace(
        parameter: String(decoding: key, as: UTF8.self),
        part: .init(expert: expert, index: pattern, count: conversion.patterns.count))
    }
    let kind = place(name).kind
    return ParameterPlace(
      parameter: String(decoding: parameter(renamed, lacksPrefix), as: UTF8.self),
      isConv1D: kind == .conv1D, isRouter: kind == .router)
  }

  /// Norms and biases are not in the rules: a bias follows its weight, the rest the base model.
  private func parameter(_ key: [UInt8], _ lacksPrefix: Bool) -> [UInt8] {
    let whole = withBasePrefix(key)
    if isKnown(whole) { return whole }
    let bias = Array(".bias".utf8)
    let weight = Array(".weight".utf8)
    if key.count > bias.count, key.suffix(bias.count).elementsEqual(bias) {
      let own = withBasePrefix(key.dropLast(bias.count) + weight)
      if isKnown(own) { return own.dropLast(weight.count) + bias }
    }
    let prefix = rule.prefix + [UInt8(ascii: ".")]
    return lacksPrefix && !key.starts(with: prefix) ? prefix + key : key
  }
}
