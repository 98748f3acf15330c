import Architectures
import Bytes
import Checkpoints
import GGUF
import JSON
import ModelFamilies
import PackedWeights
import Quantization
import Tensors

/// A model as far as its training needs memory: shapes, from headers and configuration alone.
struct FitModel: Sendable {
  let decoder: TrainedDecoder
  /// The dtype in which parameters are held and computed: bf16 or f16.
  let type: FloatType
  var parameters: [FitParameter]
  /// Why there is no 4-bit form of it; nil when there is.
  let refusal: String?
  var warnings: [Warning] = []

  /// Bytes of an element of the model in 16 bits.
  var width: Checked { Checked(type.byteCount) }
  var targets: [FitParameter] { parameters.filter(\.isTarget) }
  var elementCount: Checked { parameters.sum { Checked($0.info.elementCount) } }

  /// - Parameter path: a checkpoint's directory, one of its safetensors files with a config.json beside it, a
  ///   directory that has only a config.json, or such a file; or a model in GGUF, which is taken as the one of
  ///   transformers that it becomes before it is trained.
  /// - Throws: `missing`, `malformed`, and `unsupported` for an architecture that is not known.
  ///
  /// - Parameter config: as of `CheckpointFiles`.
  init(path: String, config: String?) throws(Failure) {
    let format = try CheckpointFormat.detect(path)
    guard config == nil || ![.configurationFile, .configurationDirectory].contains(format) else {
      throw Failure(.usage, "option '--config' is for weights; '\(path)' is a configuration itself")
    }
    switch format {
    case .ggufFile, .ggufDirectory:
      let model = try StoredModel(CheckpointFiles(path: path, format, config: config))
      guard let config = model.config else { throw Failure(.internal, "a model without a configuration", file: path) }
      try self.init(model, ("its metadata", config))
    case .safetensorsDirectory, .adapterDirectory, .mlxAdapterDirectory, .pytorchDirectory, .distributedDirectory,
      .deepSpeedDirectory, .rankedDirectory, .consolidatedDirectory:
      let directory = try InputDirectory(path: path)
      let isSafetensors = try directory.names().contains {
        $0.hasSuffix(".safetensors") || $0.hasSuffix(".index.json")
      }
      guard isSafetensors || format != .safetensorsDirectory else {
        if let failure = RunFolders.failure(at: path) { throw failure }
        let hint = HubCache.hint(for: directory)
        throw Failure(.missing, hint ?? "has neither safetensors nor a \(StoredModel.configName)", file: path)
      }
      let model = try StoredModel(CheckpointFiles(path: path, format, config: config))
      try model.refuseAdapter("name the one that it was trained on")
      guard let config = model.config else {
        throw Failure(.missing, "has no \(StoredModel.configName), which names the architecture (--config)", file: path)
      }
      try self.init(model, (StoredModel.configName, config))
    case .configurationDirectory:
      try self.init(Self.config(InputDirectory(path: path).open(StoredModel.configName)))
    case .configurationFile: try self.init(Self.config(InputFile(path: path)))
    case .safetensorsFile, .pytorchFile:
      let model = try StoredModel(CheckpointFiles(path: path, format, config: config))
      if let config = model.config {
        try self.init(model, (StoredModel.configName, config))
        return
      }
      let folder = path.split(separator: "/", omittingEmptySubsequences: false).dropLast().map { $0 + "/" }.joined()
      try self.init(model, Self.config(InputFile(path: folder + StoredModel.configName)))
    }
  }

  private static func config(_ file: InputFile) throws(Failure) -> (name: String, value: JSONValue) {
    let value = try JSONValue(parsing: file.contents(limit: StoredModel.configLimit), .python, file: file.name)
    guard value.object != nil else { throw Failure(.malformed, "is not a JSON object", file: file.name) }
    return (file.name, value)
  }

  // MARK: - From the configuration

  private init(_ config: (name: String, value: JSONValue)) throws(Failure) {
    do throws(Failure) {
      let decoder = try TrainedDecoder(config.value)
      let (type, warnings) = try Self.type(config.value)
      try self.init(decoder, type, config.value, stored: [:])
      self.warnings += warnings
    } catch { throw error.located(file: config.name) }
  }

  /// `dtype` as transformers 5 writes it, `torch_dtype` as older versions did.
  private static func type(_ config: JSONValue) throws(Failure) -> (FloatType, [Warning]) {
    guard let value = config["dtype"] ?? config["torch_dtype"], !value.isNull else {
      return (.bf16, ["the config names no dtype; bfloat16 is assumed"])
    }
    guard let name = value.string, let type = FloatType(torchName: name) else {
      let found = value.string.map { "'\($0)'" } ?? value.kind.rawValue
      throw Failure(.unsupported, "dtype is \(found), supported are float32, bfloat16, float16")
    }
    if type == .f32 { return (.bf16, ["the model is in float32; training in bfloat16 is planned"]) }
    return (type, [])
  }

  /// - Parameter stored: 4-bit weights that the checkpoint has already, by name.
  private init(
    _ decoder: TrainedDecoder, _ type: FloatType, _ config: JSONValue, stored: [String: FourBitWeight]
  ) throws(Failure) {
    self.decoder = decoder
    self.type = type
    warnings = decoder.warnings
    var tensors: [TensorInfo] = []
    for parameter in decoder.parameters {
      tensors.append(try TensorInfo(name: TensorName(parameter.name), type: type.elementType, shape: parameter.shape))
    }
    var configuration = ModelConfiguration(config)
    configuration.architecture = decoder.architecture
    configuration.tiesWordEmbeddings = decoder.tiesEmbeddings
    // One layer of each kind stands for all of them.
    let likes = Self.likes(decoder)
    let planned = tensors.indices.filter { likes[$0] == $0 }
    let plan = planWeights(
      planned.map { tensors[$0] }, configuration: configuration, target: .transformers5, keep: [])
    let dispositions = Dictionary(uniqueKeysWithValues: zip(planned, plan.dispositions))
    guard let format = FourBitFormat(code: .nf4, blockSize: 64) else {
      throw Failure(.internal, "there is no NF4 with blocks of 64")
    }
    refusal = plan.refusal
    parameters = tensors.indices.map { index in
      let info = tensors[index]
      var fourBit: (format: FourBitFormat, isNested: Bool)?
      if let weight = stored[info.name.string] {
        fourBit = (weight.format, weight.state.nestedOffset != nil)
      } else if stored.isEmpty, let disposition = dispositions[likes[index]],
        [.quantize, .quantizeTransposed].contains(disposition)
      {
        fourBit = (format, true)
      }
      return FitParameter(info: info, role: decoder.parameters[index], fourBit: fourBit)
    }
    if refusal == nil, !parameters.contains(where: { $0.fourBit != nil }) {
      warnings.append("transformers leaves every linear layer of \(decoder.family) as it is: qlora is lora-bf16")
    }
  }

  /// For each parameter the same one of the first layer that is built alike.
  private static func likes(_ decoder: TrainedDecoder) -> [Int] {
    var first: [Int: Int] = [:]
    return decoder.parameters.indices.map { index in
      guard let layer = decoder.parameters[index].layer else { return index }
      let start = first[layer] ?? index
      first[layer] = start
      return (first[decoder.likeLayers[layer]] ?? start) + index - start
    }
  }

  // MARK: - From a checkpoint

  /// - Throws: `malformed` when the checkpoint lacks a tensor that the configuration asks for, or has it in another
  ///   shape.
  private init(_ model: StoredModel, _ config: (name: String, value: JSONValue)) throws(Failure) {
    if case .other(let method) = model.quantizationMethod {
      throw Failure(.unsupported, "is quantized (\(method)); name the 16-bit checkpoint", file: model.checkpoint.path)
    }
    let infos = model.logical.items.map(model.logical.info)
    let decoder: TrainedDecoder
    do throws(Failure) {
      decoder = try TrainedDecoder(config.value)
      let (type, warnings) = try Self.type(config.value)
      let names = Self.names(of: infos, decoder)
      var fourBit: [String: FourBitWeight] = [:]
      for (item, place) in zip(model.logical.items, names) {
        if let weight = item.fourBit { fourBit[place.parameter] = weight }
      }
      try self.init(decoder, type, config.value, stored: fourBit)
      self.warnings += warnings
    } catch { throw error.located(file: config.name) }
    do throws(Failure) {
      try check(infos)
    } catch { throw model.located(error).located(file: model.checkpoint.path) }
  }

  private static func names(of infos: [TensorInfo], _ decoder: TrainedDecoder) -> [ParameterPlace] {
    ParameterNames(
      infos.map(\.name),
      configuration: ModelConfiguration(
        architecture: decoder.architecture, tiesWordEmbeddings: decoder.tiesEmbeddings)
    ).places
  }

  /// That the checkpoint has every parameter in its shape; experts may be stored one by one.
  private mutating func check(_ infos: [TensorInfo]) throws(Failure) {
    var stored: [String: TensorInfo] = [:]
    var parts: [String: Checked] = [:]
    var conv1D: Set<String> = []
    for (info, place) in zip(infos, Self.names(of: infos, decoder)) {
      if place.part == nil {
        stored[place.parameter] = info
        if place.isConv1D { conv1D.insert(place.parameter) }
      } else {
        parts[place.parameter, default: 0] += Checked(info.elementCount)
      }
    }
    for parameter in parameters {
      let info = parameter.info
      if let elements = parts.removeValue(forKey: info.name.string), elements == Checked(info.elementCount) { continue }
      guard let found = stored.removeValue(forKey: info.name.string) else {
        throw Failure(
          .malformed, "is missing, although the \(StoredModel.configName) asks for it", tensor: info.name.string)
      }
      // The 4-bit codes of a Conv1D are those of its transpose.
      let isTransposed = conv1D.contains(info.name.string) && parameter.fourBit != nil
      guard found.shape == info.shape || isTransposed && found.shape == info.shape.reversed() else {
        throw Failure(
          .malformed, "has shape \(found.shape), by the \(StoredModel.configName) it is \(info.shape)",
          tensor: found.name.string)
      }
    }
    if decoder.tiesEmbeddings { stored["lm_head.weight"] = nil }
    let others = (Array(stored.keys) + parts.keys).filter { name in
      !decoder.ignoredSuffixes.contains(where: name.hasSuffix)
    }
    if !others.isEmpty {
      warnings.append("not parameters of \(decoder.architecture), left out: \(names: others.sorted())")
    }
  }

  // MARK: - Targets

  /// - Parameter names: last names of modules; nil for all linear layers but the output embedding, and the experts
  ///   where PEFT takes them for linear layers, which is what its `all-linear` means.
  /// - Throws: `missing` for a name that no linear layer has, and where one of two names is given whose matrices are
  ///   one parameter.
  mutating func select(_ names: [String]?) throws(Failure) {
    let adapters = parameters.compactMap(\.role.adapter)
    let known = Set(adapters.flatMap(\.names))
    if let name = names?.first(where: { !known.contains($0) }) {
      throw Failure(
        .missing,
        "no linear layer is named '\(name)' (--target-modules); there are \(known.sorted().joined(separator: ", "))")
    }
    for index in parameters.indices {
      guard let adapter = parameters[index].role.adapter else { continue }
      let missing = names.map { names in adapter.names.filter { !names.contains($0) } } ?? []
      guard missing.isEmpty || missing.count == adapter.names.count else {
        throw Failure(
          .missing,
          "'\(missing[0])' and the others of \(adapter.names.joined(separator: ", ")) are one parameter: "
            + "--target-modules names all of them or none")
      }
      parameters[index].isTarget = missing.isEmpty
    }
  }
}
