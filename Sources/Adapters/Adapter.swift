public import Bytes
import PyTorch
import Safetensors
public import Tensors

/// A LoRA adapter: configuration and tensors under the names that PEFT gives them. Opening reads configuration and
/// headers, no data.
public final class Adapter: Sendable {
  /// The adapter's path as the user named it.
  public let path: String
  /// The last component of the path, to call it by.
  public let name: String
  public let configuration: AdapterConfiguration
  public let source: any TensorSource
  /// The directory of `adapter_config.json` and the files beside it; nil for an adapter in another form.
  public let directory: InputDirectory?
  /// The files that hold the weights.
  public let files: [InputFile]
  public let warnings: [Warning]

  /// Everything that adapts one parameter.
  struct Module: Sendable {
    /// The module's path in the model.
    var path: String
    var depth: Int
    /// Positions among the file's tensors.
    var a: Int?
    var b: Int?
    var isEmbedding = false
    var bias: Int?
    var magnitude: Int?
  }

  struct Replacement: Sendable {
    var path: String
    var parameter: String
    var tensor: Int
  }

  struct TokenRows: Sendable {
    var path: String
    var tensor: Int
  }

  /// The parts of the adapter, in the order of the file.
  let modules: [Module]
  let replacements: [Replacement]
  let tokenRows: [TokenRows]

  public static let configName = "adapter_config.json"
  public static let weightsName = "adapter_model.safetensors"
  public static let pickleName = "adapter_model.bin"

  /// Opens the directory that PEFT saved: `adapter_config.json` and `adapter_model.safetensors`, or
  /// `adapter_model.bin` as it did before 2023.
  ///
  /// - Throws: `missing` when a file is not there, `malformed` for an adapter that contradicts itself,
  ///   `unsupported` for one that cannot be merged.
  public convenience init(path: String) throws(Failure) {
    guard InputDirectory.exists(at: path) else {
      throw try Self.notADirectory(path)
    }
    let directory = try InputDirectory(path: path)
    let names = try directory.names()
    try Self.check(names, path)
    let shown = "\(path)/\(Self.configName)"
    let bytes = try directory.open(Self.configName, as: shown).contents(limit: AdapterConfiguration.sizeLimit)
    let configuration = try AdapterConfiguration(parsing: bytes, file: shown)
    let isSafetensors = names.contains(Self.weightsName)
    let weightsName = isSafetensors ? Self.weightsName : Self.pickleName
    let input = try directory.open(weightsName, as: "\(path)/\(weightsName)")
    let source: any TensorSource
    var warnings: [Warning] = []
    if isSafetensors {
      let file = try SafetensorsFile(input)
      warnings = file.header.warnings
      source = file
    } else {
      source = try PyTorchFile(input)
    }
    if isSafetensors, names.contains(Self.pickleName) {
      warnings.append("\(list: [path]): '\(Self.pickleName)' is ignored: '\(Self.weightsName)' counts")
    }
    if !configuration.unknownMembers.isEmpty {
      warnings.append(
        "\(list: [shown]): passed over, since PEFT \(ExtractedConfiguration.peftVersion) does not know what it means: "
          + "\(names: configuration.unknownMembers)")
    }
    if configuration.alpha == 0 { warnings.append("\(list: [path]): lora_alpha is 0: the adapter's deltas are zero") }
    try self.init(
      path: path, configuration: configuration, source: source, directory: directory, files: [input], warnings: warnings
    )
  }

  /// An adapter in a form of its own.
  ///
  /// - Parameters:
  ///   - source: its tensors, under the names that PEFT would give them.
  ///   - files: those that they are read from.
  /// - Throws: as opening a directory does.
  public init(
    path: String, configuration: AdapterConfiguration, source: any TensorSource, directory: InputDirectory? = nil,
    files: [InputFile], warnings: [Warning]
  ) throws(Failure) {
    self.path = path
    name = path.split(separator: "/").last.map(String.init) ?? path
    self.configuration = configuration
    self.source = source
    self.directory = directory
    self.files = files
    let weightsPath = Self.weightsPath(path, directory, files)
    var sorter = Sorter(source.tensors)
    do throws(Failure) { try sorter.sort() } catch { throw error.located(file: weightsPath) }
    modules = sorter.modules
    replacements = sorter.replacements
    tokenRows = sorter.tokenRows
    self.warnings = warnings
    // A resized embedding in `modules_to_save` is saved under two names.
    for (one, other) in sorter.repeated where try !hasSameValues(one, as: other, of: self) {
      throw failure("means the same as '\(tensors[other].name.string)' and has other values", tensor: one)
    }
  }

  /// Both files must be there; what else lies there tells what is the matter.
  private static func check(_ names: [String], _ path: String) throws(Failure) {
    if names.contains(configName), names.contains(weightsName) || names.contains(pickleName) { return }
    if names.contains("adapters.safetensors") {
      throw Failure(
        .missing, "holds 'adapters.safetensors' of mlx-lm without '\(configName)', which says its scale", file: path)
    }
    guard names.contains(configName) else {
      if let directory = try? InputDirectory(path: path), let hint = HubCache.hint(for: directory) {
        throw Failure(.missing, hint, file: path)
      }
      throw Failure(.missing, "holds no '\(configName)': it is not a PEFT adapter", file: path)
    }
    throw Failure(.missing, "holds no '\(weightsName)' nor '\(pickleName)'", file: path)
  }

  private static func notADirectory(_ path: String) throws(Failure) -> Failure {
    let file = try HubCache.openModel(at: path)
    return Failure(
      .malformed, "is a file; an adapter is the directory with '\(configName)' and '\(weightsName)'", file: file.name)
  }

  var tensors: [TensorInfo] { source.tensors }

  /// Identities of the adapter's directory or files, which no output may replace.
  public var identities: [FileIdentity] { directory.map { [$0.identity] } ?? files.map(\.identity) }

  /// The file of the weights, for messages.
  var weightsPath: String { Self.weightsPath(path, directory, files) }

  private static func weightsPath(_ path: String, _ directory: InputDirectory?, _ files: [InputFile]) -> String {
    directory == nil ? path : files.first?.name ?? path
  }

  /// A failure of one of the adapter's tensors, with its place.
  func failure(_ message: String, tensor: Int) -> Failure {
    Failure(.malformed, message, file: weightsPath, tensor: tensors[tensor].name.string)
  }
}

/// Sorts the tensors of an adapter into what they do.
private struct Sorter {
  let tensors: [TensorInfo]
  var modules: [Adapter.Module] = []
  var replacements: [Adapter.Replacement] = []
  var tokenRows: [Adapter.TokenRows] = []
  /// Tensors that replace what another replaces already.
  var repeated: [(Int, Int)] = []
  private var places: [String: Int] = [:]

  init(_ tensors: [TensorInfo]) { self.tensors = tensors }

  mutating func sort() throws(Failure) {
    guard !tensors.isEmpty else { throw Failure(.malformed, "holds no tensor") }
    for (index, info) in tensors.enumerated() {
      let key = AdapterKey(info.name.string)
      guard key.hasPrefix else {
        throw Failure(
          .malformed, "does not begin with 'base_model.model.', as every name in a PEFT adapter does",
          tensor: info.name.string)
      }
      if key.role == .ignored { continue }
      guard key.role != .unknown else {
        throw Failure(
          .unsupported, "belongs to no kind of adapter that can be merged", tensor: info.name.string)
      }
      try check(info)
      switch key.role {
      case .replacement(let parameter):
        replacements.append(.init(path: key.module, parameter: parameter, tensor: index))
      case .tokenRows: tokenRows.append(.init(path: key.module, tensor: index))
      default: try add(index, key)
      }
    }
    for module in modules { try check(module) }
    findRepetition()
  }

  private func check(_ info: TensorInfo) throws(Failure) {
    guard info.elementCount > 0 else {
      throw Failure(
        .malformed,
        "has shape \(info.shape): an empty tensor, as training with ZeRO-3 leaves when parameters are not gathered "
          + "before saving", tensor: info.name.string)
    }
    guard [.f16, .bf16, .f32].contains(info.type) else {
      throw Failure(
        .malformed, "is \(info.type.name), allowed in an adapter are F32, BF16, F16", tensor: info.name.string)
    }
  }

  private mutating func add(_ index: Int, _ key: AdapterKey) throws(Failure) {
    let id = "\(key.depth) \(key.module)"
    let place = places[id] ?? modules.count
    if place == modules.count {
      modules.append(.init(path: key.module, depth: key.depth))
      places[id] = place
    }
    var module = modules[place]
    func set(_ field: inout Int?) throws(Failure) {
      if let other = field {
        throw Failure(
          .malformed, "means the same as '\(tensors[other].name.string)'", tensor: tensors[index].name.string)
      }
      field = index
    }
    let isEmbedding = key.role == .embeddingA || key.role == .embeddingB
    switch key.role {
    case .loraA, .embeddingA: try set(&module.a)
    case .loraB, .embeddingB: try set(&module.b)
    case .loraBias: try set(&module.bias)
    case .magnitude: try set(&module.magnitude)
    case .replacement, .tokenRows, .ignored, .unknown: break
    }
    if key.role != .magnitude { module.isEmbedding = module.isEmbedding || isEmbedding }
    modules[place] = module
  }

  private func check(_ module: Adapter.Module) throws(Failure) {
    let any = module.a ?? module.b ?? module.magnitude ?? module.bias ?? 0
    guard let a = module.a, let b = module.b else {
      let missing = module.a == nil ? "A" : "B"
      throw Failure(
        .malformed, "has no lora_\(missing) beside it in module '\(module.path)'", tensor: tensors[any].name.string
      )
    }
    let isEmbedding = AdapterKey(tensors[a].name.string).role == .embeddingA
    guard isEmbedding == (AdapterKey(tensors[b].name.string).role == .embeddingB) else {
      throw Failure(
        .malformed, "has no \(isEmbedding ? "lora_embedding_B" : "lora_B") beside it in module '\(module.path)'",
        tensor: tensors[a].name.string)
    }
  }

  private mutating func findRepetition() {
    var seen: [String: Int] = [:]
    var kept: [Adapter.Replacement] = []
    for replacement in replacements {
      let name = "\(replacement.path).\(replacement.parameter)"
      if let other = seen[name] {
        repeated.append((replacement.tensor, other))
      } else {
        seen[name] = replacement.tensor
        kept.append(replacement)
      }
    }
    replacements = kept
  }
}
