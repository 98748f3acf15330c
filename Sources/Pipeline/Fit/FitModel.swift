import Architectures
import Bytes
import GGUF
import JSON
import Quantization
import Safetensors
import Tensors

/// A model as far as its training needs memory: shapes, from headers and configuration alone.
struct FitModel: Sendable {
  let shape: ModelShape
  /// What parameters are held and computed in: bf16 or f16.
  let type: FloatType
  var parameters: [FitParameter]
  var warnings: [Warning] = []

  /// Bytes of an element of the model in 16 bits.
  var width: Checked { Checked(type.byteCount) }
  var targets: [FitParameter] { parameters.filter(\.isTarget) }
  var elementCount: Checked { parameters.sum { Checked($0.info.elementCount) } }

  /// - Parameter path: a checkpoint's directory, one of its safetensors files with a config.json beside it, a
  ///   directory that has only a config.json, or such a file; or a model in GGUF, which is taken as the one of
  ///   transformers that it becomes before it is trained.
  /// - Throws: `missing`, `malformed`, and `unsupported` for an architecture that is not known.
  init(path: String) throws(Failure) {
    if try GGUFCheckpoint.isGGUF(path: path) {
      let model = try ModelSource(path: path)
      guard let config = model.config else { throw Failure(.internal, "a model without a configuration", file: path) }
      try self.init(model, ("its metadata", config))
      return
    }
    if InputDirectory.exists(at: path) {
      let directory = try InputDirectory(path: path)
      let names = try directory.entries().map(\.name)
      if names.contains(where: { $0.hasSuffix(".safetensors") || $0.hasSuffix(".safetensors.index.json") }) {
        let model = try ModelSource(path: path)
        try model.refuseAdapter("name the one that it was trained on")
        guard let config = model.config else {
          throw Failure(.missing, "has no \(ModelSource.configName), which names the architecture", file: path)
        }
        try self.init(model, (ModelSource.configName, config))
      } else {
        guard names.contains(ModelSource.configName) else {
          let hint = HubCache.hint(for: directory)
          throw Failure(.missing, hint ?? "has neither safetensors nor a \(ModelSource.configName)", file: path)
        }
        try self.init(Self.config(directory.open(ModelSource.configName)))
      }
      return
    }
    let file = try InputFile(path: path)
    if try Self.isText(file) {
      try self.init(Self.config(file))
    } else {
      let model = try ModelSource(path: path)
      let folder = path.split(separator: "/", omittingEmptySubsequences: false).dropLast().map { $0 + "/" }.joined()
      try self.init(model, Self.config(InputFile(path: folder + ModelSource.configName)))
    }
  }

  /// Safetensors begin with a header's length, of which the last of eight bytes is 0: no text has that.
  private static func isText(_ file: InputFile) throws(Failure) -> Bool {
    let first = try file.bytes(in: 0..<min(file.size, 8))
    return !first.contains(0) && first.first { ![9, 10, 13, 32].contains($0) } == UInt8(ascii: "{")
  }

  private static func config(_ file: InputFile) throws(Failure) -> (name: String, value: JSONValue) {
    let value = try JSONValue(parsing: file.contents(limit: ModelSource.configLimit), .python, file: file.name)
    guard value.object != nil else { throw Failure(.malformed, "is not a JSON object", file: file.name) }
    return (file.name, value)
  }

  // MARK: - From the configuration

  private init(_ config: (name: String, value: JSONValue)) throws(Failure) {
    do throws(Failure) {
      let shape = try ModelShape(config.value)
      let (type, warnings) = try Self.type(config.value)
      try self.init(shape, type, config.value, stored: [:])
      self.warnings = warnings
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
    _ shape: ModelShape, _ type: FloatType, _ config: JSONValue, stored: [String: FourBitWeight]
  ) throws(Failure) {
    self.shape = shape
    self.type = type
    let tensors = try shape.tensors(type.elementType)
    var configuration = ModelConfiguration(config)
    configuration.architecture = shape.family.architecture
    configuration.tiesWordEmbeddings = shape.tiesEmbeddings
    let plan = planWeights(tensors, configuration: configuration, target: .transformers5, keep: [])
    guard let format = FourBitFormat(code: .nf4, blockSize: 64) else {
      throw Failure(.internal, "there is no NF4 with blocks of 64")
    }
    parameters = zip(tensors, zip(plan.dispositions, plan.modules)).map { info, place in
      var fourBit: (format: FourBitFormat, isNested: Bool)?
      if let weight = stored[info.name.string] {
        fourBit = (weight.format, weight.state.nestedOffset != nil)
      } else if stored.isEmpty, place.0 == .quantize {
        fourBit = (format, true)
      }
      return FitParameter(info: info, module: place.0 == .quantize ? place.1 : nil, fourBit: fourBit)
    }
  }

  // MARK: - From a checkpoint

  /// - Throws: `malformed` when the checkpoint lacks a tensor that the configuration asks for, or has it in another
  ///   shape.
  private init(_ model: ModelSource, _ config: (name: String, value: JSONValue)) throws(Failure) {
    if case .other(let method) = model.quantizationMethod {
      throw Failure(.unsupported, "is quantized (\(method)); name the 16-bit checkpoint", file: model.checkpoint.path)
    }
    var stored: [String: TensorInfo] = [:]
    var fourBit: [String: FourBitWeight] = [:]
    for item in model.logical.items {
      let info = model.logical.info(item)
      stored[info.name.string] = info
      if case .fourBit(let weight) = item { fourBit[info.name.string] = weight }
    }
    do throws(Failure) {
      let shape = try ModelShape(config.value)
      let (type, warnings) = try Self.type(config.value)
      try self.init(shape, type, config.value, stored: fourBit)
      self.warnings = warnings
    } catch  where error.code == .unsupported {
      let known = ModelFamily.allCases.map(\.architecture).joined(separator: ", ")
      throw Failure(
        .unsupported, "what its training keeps in memory is known for \(known) in 16 or 32 bits only", file: config.name
      )
    } catch { throw error.located(file: config.name) }
    for parameter in parameters {
      let info = parameter.info
      guard let found = stored.removeValue(forKey: info.name.string) else {
        throw Failure(
          .malformed, "is missing, although the \(ModelSource.configName) asks for it", file: model.checkpoint.path,
          tensor: info.name.string)
      }
      guard found.shape == info.shape else {
        throw model.located(
          Failure(
            .malformed, "has shape \(found.shape), by the \(ModelSource.configName) it is \(info.shape)",
            tensor: info.name.string))
      }
    }
    if shape.tiesEmbeddings { stored["lm_head.weight"] = nil }
    let others = stored.keys.sorted()
    if !others.isEmpty {
      warnings.append("not parameters of \(shape.family.architecture), left out: \(names: others)")
    }
  }

  // MARK: - Targets

  /// - Parameter names: last names of modules; nil for all linear layers but the output embedding, which is what
  ///   PEFT's `all-linear` means.
  /// - Throws: `missing` for a name that no linear layer has.
  mutating func select(_ names: [String]?) throws(Failure) {
    let known = Set(parameters.compactMap(\.moduleName).map(String.init))
    if let name = names?.first(where: { !known.contains($0) }) {
      throw Failure(
        .missing,
        "no linear layer is named '\(name)' (--target-modules); there are \(known.sorted().joined(separator: ", "))")
    }
    for index in parameters.indices {
      guard let name = parameters[index].moduleName else { continue }
      parameters[index].isTarget = names?.contains(String(name)) ?? true
    }
  }
}
