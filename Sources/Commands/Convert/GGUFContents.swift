package import Bytes
package import Checkpoints
package import GGUF
package import JSON
import ModelFamilies
import Quantization
package import Tensors
import Tokenizers
import TypeMixtures

/// A model about to be written as GGUF: names, shapes, metadata and values, whatever they come from.
package struct GGUFContents {
  /// One tensor for each of `tensors`.
  package let source: any TensorSource
  /// The tensors as they would be written with nothing quantized.
  package let tensors: [GGUFTensor]
  /// Positions of tensors that keep their type whatever the others are written in: vectors and routers.
  package let fixed: Set<Int>
  package let metadata: GGUFMetadata
  /// A GGUF model that some of the tensors are in as they are, and where in it.
  package let stored: GGUFCheckpoint?
  package let origins: [Int?]
  package let warnings: [Warning]
  package let path: String
  package let identities: [FileIdentity]
  package let checkUnchanged: () throws(Failure) -> Void
  /// How the model is quantized whose weights stand here as the values that they are for; nil for one whose tensors'
  /// types tell.
  package let quantization: String?
  /// The names in a Hugging Face model of tensors that are there as they are here, but for the order of their rows.
  package let originalNames: () throws(Failure) -> [Int: TensorName]
  /// The failure with the file that holds its tensor, where it named none.
  package let located: (Failure) -> Failure

  static let fileTypeKey = "general.file_type"
  static let sideFileLimit = 256 << 20
}

extension GGUFContents {
  /// - Parameter isExact: weights that are in 4 bits are read as F32, for what is to be rounded again.
  package init(_ files: CheckpointFiles, isExact: Bool) throws(Failure) {
    switch files {
    case .gguf(let values):
      try checkArchitecture(values)
      try self.init(values)
    case .safetensors, .pytorch, .training, .planned: try self.init(StoredModel(files), isExact: isExact)
    }
  }

  package init(_ values: StoredGGUF) throws(Failure) {
    source = values
    let tensors = values.checkpoint.tensors
    self.tensors = tensors
    fixed = Set(tensors.indices.filter { tensors[$0].shape.count < 2 || !tensors[$0].type.isReal })
    metadata = values.checkpoint.metadata
    stored = values.checkpoint
    origins = Array(tensors.indices)
    warnings = values.warnings
    path = values.path
    identities = values.identities
    checkUnchanged = { () throws(Failure) in try values.checkUnchanged() }
    quantization = nil
    originalNames = { () throws(Failure) in try GGUFModel(values, blockType: .f32).storedNames }
    located = { failure in
      guard failure.file == nil, let tensor = failure.tensor, let index = values.index(of: TensorName(tensor)) else {
        return failure
      }
      return failure.located(file: values.location(of: index).file)
    }
  }

  /// A Hugging Face model, under the names and in the arrangement that llama.cpp expects.
  package init(_ model: StoredModel, isExact: Bool) throws(Failure) {
    try model.refuseAdapter(Quantize.adapterReason)
    guard let config = model.config else {
      throw Failure(
        .missing, "has no \(StoredModel.configName), which names the architecture (--config)",
        file: model.checkpoint.path)
    }
    if case .other(let method) = model.quantizationMethod {
      throw Failure(
        .unsupported, "is quantized (\(method)); start from the original 16-bit checkpoint", file: model.checkpoint.path
      )
    }
    _ = try model.checkContents()
    let values = isExact ? try DequantizedSource(model.logical, for: .f32) : DequantizedSource(model.logical)
    // 4-bit weights of `Conv1D` are [out, in]; the plan expects them as a plain checkpoint has them.
    let turned = model.transposedWeights.filter(values.isPacked)
    let whole: any TensorSource = turned.isEmpty ? values : try TransposedSource(values, turned)
    var plain = config
    plain["quantization_config"] = nil
    try self.init(
      model, SortedSource(whole, order: model.converterOrder), config: plain, fileNames: model.sideFiles
    ) { (name) throws(Failure) in
      guard model.sideFiles.contains(name) else { return nil }
      return try model.sideFile(name).contents(limit: Self.sideFileLimit)
    }
  }

  /// - Parameters:
  ///   - base: the model's tensors, or what has been made of them, in the order of llama.cpp's converter.
  ///   - fileNames: of what goes along with the model.
  ///   - sideFile: the content of such a file, nil when there is none.
  package init(
    _ model: StoredModel, _ base: any TensorSource, config: JSONValue, fileNames: [String],
    sideFile: (String) throws(Failure) -> [UInt8]?
  ) throws(Failure) {
    let plan = try planGGUF(
      config: config, tensors: base.tensors, directoryName: model.directoryName, sideFile: sideFile)
    let tokenizer = try ggufTokenizer(
      modelType: config["model_type"]?.string ?? plan.family.name, config: config, fileNames: fileNames,
      sideFile: sideFile)
    let source = try PlannedSource(base, plan.weights)
    let tensors = try Self.tensors(of: source)
    var pairs = plan.metadata
    let fileType = GGUFContents.prevailingType(of: tensors).fileType ?? 0
    pairs.insert((Self.fileTypeKey, .uint32(fileType)), at: min(plan.fileTypePosition, pairs.count))
    pairs.append(("general.quantization_version", .uint32(GGUFMetadata.quantizationVersion)))
    self.source = source
    self.tensors = tensors
    fixed = Set(
      tensors.indices.filter {
        plan.weights[$0].isAlwaysF32 || tensors[$0].shape.count < 2 || !tensors[$0].type.isReal
      })
    metadata = GGUFMetadata(pairs + tokenizer.pairs)
    stored = nil
    origins = []
    warnings = model.checkpoint.warnings + plan.warnings + tokenizer.warnings
    path = model.checkpoint.path
    identities = model.checkpoint.identities
    checkUnchanged = { () throws(Failure) in try model.checkpoint.checkUnchanged() }
    quantization =
      model.checkpoint.dequantizes.map { "quantized (\($0))" }
      ?? (model.quantizationMethod == .fourBit ? "in 4 bits (bitsandbytes)" : nil)
    let names = base.tensors.map(\.name)
    originalNames = {
      var found: [Int: TensorName] = [:]
      for (index, weight) in plan.weights.enumerated() {
        if case .stored(let position) = weight.source { found[index] = names[position] }
      }
      return found
    }
    located = { model.located($0) }
  }

  /// The source's tensors in the types that they have in GGUF with nothing quantized.
  package static func tensors(of source: PlannedSource) throws(Failure) -> [GGUFTensor] {
    var tensors: [GGUFTensor] = []
    for (weight, info) in zip(source.weights, source.tensors) {
      let isVector = weight.isAlwaysF32 || info.shape.count < 2
      guard let type = isVector || info.type == .f64 ? .f32 : GGMLType(info.type) else {
        throw Failure(.unsupported, "is \(info.type.name), which GGUF does not have", tensor: info.name.string)
      }
      tensors.append(try GGUFTensor(name: info.name, type: type, shape: info.shape))
    }
    return tensors
  }

  /// The type that most values of the matrices have.
  private static func prevailingType(of tensors: [GGUFTensor]) -> GGMLType {
    var counts: [GGMLType: Int] = [:]
    for tensor in tensors where tensor.shape.count > 1 {
      counts[tensor.type] = (counts[tensor.type] ?? 0).addingSaturated(tensor.elementCount)
    }
    return counts.max { ($0.value, $0.key.rawValue) < ($1.value, $1.key.rawValue) }?.key ?? .f32
  }
}

/// A source with its tensors in another order.
package struct SortedSource: TensorSource {
  package let base: any TensorSource
  package let order: [Int]
  package let tensors: [TensorInfo]

  package init(_ base: any TensorSource, order: [Int]) {
    self.base = base
    self.order = order
    tensors = order.map { base.tensors[$0] }
  }

  package func storedByteCount(of index: Int) -> Int { base.storedByteCount(of: order[index]) }

  package func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    try base.read(order[index], at: offset, into: &destination)
  }
}

extension StoredModel {
  /// The last component of the model's real path.
  package var directoryName: String {
    let name = FileName.last(of: checkpoint.path)
    return ["", ".", ".."].contains(name) ? "model" : name
  }

  /// The logical tensors in the order in which llama.cpp's converter reads them: by file, then by name.
  var converterOrder: [Int] {
    let keys = logical.items.indices.map { position -> (file: String, name: TensorName) in
      let item = logical.items[position]
      return (checkpoint.location(of: item.payload).file, logical.info(item).name)
    }
    return keys.indices.sorted { left, right in
      keys[left].file == keys[right].file
        ? keys[left].name < keys[right].name
        : keys[left].file.utf8.lexicographicallyPrecedes(keys[right].file.utf8)
    }
  }
}
