public import Bytes
import Checkpoints
public import GGUF
import Patterns
import Tensors

/// Which type each tensor of a model gets, as `llama-quantize` chooses it.
public struct TypeChoice: Sendable {
  public var scheme: GGUFScheme
  /// The type of `output.weight`; without one, of the embedding that takes its place.
  public var outputType: GGMLType?
  /// The type of the embeddings.
  public var embeddingType: GGMLType?
  /// The scheme's default type for everything.
  public var isPure = false
  /// `output.weight` stays as it is.
  public var leavesOutputTensor = false
  /// A regular expression, searched for in the names; the first that is found decides, before the mixture. They
  /// count only under a scheme that quantizes, and are put in lower case, as names are.
  public var overrides: [(pattern: String, type: GGMLType)] = []
  /// Whether an importance matrix is given: some choices depend on it.
  public var hasImportance: Bool

  public init(_ scheme: GGUFScheme, hasImportance: Bool = false) {
    self.scheme = scheme
    self.hasImportance = hasImportance
  }

  /// - Parameter text: `REGEX=TYPE`.
  /// - Throws: `usage` when it is not of this form, or the type is not known.
  public static func override(_ text: String) throws(Failure) -> (pattern: String, type: GGMLType) {
    guard let equals = text.firstIndex(of: "="), equals != text.startIndex else {
      throw Failure(.usage, "'\(text.printable(limit: 200))' is not of the form REGEX=TYPE")
    }
    let name = String(text[text.index(after: equals)...])
    guard let type = GGMLType(name: name) else {
      throw Failure(.usage, "'\(name.printable(limit: 200))' is no type of ggml's; there are \(Self.available)")
    }
    return (String(text[..<equals]), type)
  }

  /// Names of the types that tensors can be given.
  public static var available: String {
    GGMLType.allCases.filter(\.canBeEncoded).map(\.name).joined(separator: ", ")
  }

  /// - Returns: a type for each tensor, in the order given; what stays as it is has its own. Warnings are of types
  ///   that had to be replaced because a row is not whole blocks, and of overrides that cannot have an effect.
  /// - Throws: `unsupported` for a scheme or a type that cannot be written; `usage` for a pattern that is not
  ///   understood, for a scheme that needs an importance matrix, and for a type given that does not fit;
  ///   `malformed` for metadata that are missing or make no sense.
  public func callAsFunction(
    _ tensors: [GGUFTensor], metadata: GGUFMetadata
  ) throws(Failure) -> (types: [GGMLType], warnings: [Warning]) {
    guard scheme.defaultType.canBeEncoded else {
      let names = GGUFScheme.allCases.filter(\.defaultType.canBeEncoded).map(\.rawValue).joined(separator: ", ")
      throw Failure(.unsupported, "\(scheme.rawValue) cannot be written; there are \(names)")
    }
    let result = try choose(tensors, metadata: metadata)
    for (tensor, type) in zip(tensors, result.types) where type != tensor.type {
      guard type.canBeEncoded else {
        throw Failure(
          .unsupported, "\(type.name) cannot be written; there are \(Self.available)", tensor: tensor.name.string)
      }
    }
    return result
  }

  /// The same, whether the types can be written or not.
  package func choose(
    _ tensors: [GGUFTensor], metadata: GGUFMetadata, demandsImportance: Bool = true
  ) throws(Failure) -> (types: [GGMLType], warnings: [Warning]) {
    let patterns = try compiled()
    let model = try ModelTraits(metadata)
    let roles = tensors.map { TensorRole(name: $0.name.string) }
    var mixture = MixtureState(self, model, roles: roles)
    var types = tensors.map(\.type)
    var warnings: [Warning] = []
    if !patterns.isEmpty, !scheme.defaultType.isQuantized {
      warnings.append("\(scheme.rawValue) quantizes nothing: the types of single tensors are not heeded")
    }
    var deciding: Set<Int> = []
    for index in tensors.quantizationOrder {
      let tensor = tensors[index]
      guard
        QuantizedNames.include(
          tensor, architecture: model.architecture, leavesOutputTensor: leavesOutputTensor)
      else { continue }
      let role = roles[index]
      if let given = given(tensor, role, patterns) {
        try Self.check(given, fits: tensor)
        types[index] = given
      } else if scheme.defaultType.isQuantized {
        var type = scheme.defaultType
        if let place = patterns.firstIndex(where: { $0.pattern.matches(tensor.name.string) }) {
          type = patterns[place].type
          deciding.insert(place)
        } else if !isPure {
          type = try mixture.type(of: tensor, role: role)
        }
        types[index] = try Self.fitted(type, to: tensor, &warnings)
      } else {
        types[index] = scheme.defaultType
      }
      if demandsImportance, !hasImportance, requiresImportance(types[index], role) {
        throw Failure(
          .usage, "\(types[index].name) in \(scheme.rawValue) needs an importance matrix (--imatrix)",
          tensor: tensor.name.string)
      }
    }
    if scheme.defaultType.isQuantized { warnings += idle(patterns, deciding, tensors) }
    return (types, Warning.grouped(warnings))
  }

  /// Whether the tensor of this name must find its weights in the importance matrix: quantized to so few bits
  /// without them, it would be of no use.
  public func requiresImportance(_ name: String, type: GGMLType) -> Bool {
    requiresImportance(type, TensorRole(name: name))
  }

  private func requiresImportance(_ type: GGMLType, _ role: TensorRole) -> Bool {
    guard role != .output, role != .embedding else { return false }
    return switch type {
    case .iq1_s, .iq1_m, .iq2_xxs, .iq2_xs, .iq2_s, .iq3_xxs: true
    case .q2_K: scheme == .q2_k_s
    default: false
    }
  }

  /// Warnings about overrides that decide no tensor's type.
  private func idle(_ patterns: [Override], _ deciding: Set<Int>, _ tensors: [GGUFTensor]) -> [Warning] {
    patterns.indices.filter { !deciding.contains($0) }.map { place in
      let option = "\(overrides[place].pattern)=\(overrides[place].type.name)"
      let found = tensors.filter { patterns[place].pattern.matches($0.name.string) }.map(\.name.string)
      return found.isEmpty
        ? "--tensor-type \(names: [option]) matches no tensor"
        : "--tensor-type \(names: [option]) decides nothing: an earlier option has what it matches, or no type is chosen "
          + "for it: \(names: found)"
    }
  }

  private typealias Override = (pattern: LinearPattern, type: GGMLType)

  private func compiled() throws(Failure) -> [Override] {
    var result: [Override] = []
    for (text, type) in overrides {
      guard let pattern = LinearPattern(searching: text.asciiLowercased, .ecmaScript) else {
        throw Failure(
          .usage,
          "'\(text.printable(limit: 200))' is not a regular expression of the kind that can be matched in "
            + "linear time (no looking around, no references back)")
      }
      result.append((pattern, type))
    }
    return result
  }

  /// The type that an option names for the output or the embeddings, which is taken as it is.
  private func given(_ tensor: GGUFTensor, _ role: TensorRole, _ patterns: [Override]) -> GGMLType? {
    switch role {
    case .output: return outputType
    case .embedding:
      // The table of each layer's own embeddings is large and may be named apart.
      let isNamed =
        tensor.name.string == TensorRole.layerEmbeddingName
        && patterns.contains { $0.pattern.matches(tensor.name.string) }
      return isNamed ? nil : embeddingType
    default: return nil
    }
  }

  private static func check(_ type: GGMLType, fits tensor: GGUFTensor) throws(Failure) {
    guard tensor.columns % type.valuesPerBlock == 0 else {
      throw Failure(
        .usage,
        "a row of \(tensor.columns) values is not whole blocks of \(type.valuesPerBlock), as \(type.name) needs",
        tensor: tensor.name.string)
    }
  }

  private static func fitted(
    _ type: GGMLType, to tensor: GGUFTensor, _ warnings: inout [Warning]
  ) throws(Failure) -> GGMLType {
    guard tensor.columns % type.valuesPerBlock != 0 else { return type }
    guard let fallback = type.fallback(row: tensor.columns) else {
      try check(type, fits: tensor)
      return type
    }
    warnings.append(
      "becomes \(fallback.name), because a row of \(tensor.columns) values is not whole blocks of "
        + "\(type.valuesPerBlock), as \(type.name) needs: \(names: [tensor.name.string])")
    return fallback
  }
}

extension [GGUFTensor] {
  /// The order in which `llama-quantize` goes through tensors and writes them: by layer, then by the bytes of the name.
  public var quantizationOrder: [Int] {
    let layers = map { $0.name.string.blockNumber ?? -1 }
    return indices.sorted { (layers[$0], self[$0].name) < (layers[$1], self[$1].name) }
  }
}

extension String {
  fileprivate var asciiLowercased: String {
    String(decoding: utf8.map { (0x41...0x5A).contains($0) ? $0 + 0x20 : $0 }, as: UTF8.self)
  }
}
