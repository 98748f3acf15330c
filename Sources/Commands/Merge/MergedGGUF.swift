import Adapters
import Bytes
import Checkpoints
import GGUF
import JSON
import ModelFamilies
import Tensors
import Tokenizers

/// A merged model about to be written as GGUF.
struct MergedGGUF {
  private let merged: MergePlan
  private let model: StoredModel
  /// The merged model's `config.json`.
  private let config: JSONValue
  private let side: SideFiles
  /// The merged model's tensors in the order of llama.cpp's converter.
  private let order: [Int]

  init(_ merged: MergePlan, of model: StoredModel, config: JSONValue, side: SideFiles) {
    self.merged = merged
    self.model = model
    self.side = side
    var config = config
    config["quantization_config"] = nil
    self.config = config
    let items = merged.source.items
    let keys = items.map { item in (file: item.baseIndex.map(model.file) ?? "", name: item.info.name) }
    order = items.indices.sorted { left, right in
      keys[left].file == keys[right].file
        ? keys[left].name < keys[right].name
        : keys[left].file.utf8.lexicographicallyPrecedes(keys[right].file.utf8)
    }
  }

  func input() throws(Failure) -> GGUFContents {
    let source = SortedSource(merged.source, order: order)
    guard let base = model.gguf else {
      return try GGUFContents(model, source, config: config, fileNames: side.names, sideFile: sideFile)
    }
    return try input(source, base)
  }

  private func sideFile(_ name: String) throws(Failure) -> [UInt8]? {
    if let made = side.contents(name) { return made }
    guard side.files.contains(where: { $0.name == name }) else { return nil }
    return try side.open(name).contents(limit: GGUFContents.sideFileLimit)
  }

  /// Those of an adapter replace all that the base has.
  private func setChatTemplates(_ metadata: inout GGUFMetadata) throws(Failure) -> [Warning] {
    guard side.hasTemplatesOfAdapter else { return [] }
    let templates = try ggufChatTemplates(fileNames: side.names, sideFile: sideFile)
    metadata = GGUFMetadata(metadata.pairs.filter { !isChatTemplate($0.key) } + templates.pairs)
    return templates.warnings
  }

  // MARK: - Onto a base in GGUF

  /// Order, types and metadata stay those of the base, and the bytes of every tensor that no adapter touches.
  private func input(_ source: SortedSource, _ base: GGUFModel) throws(Failure) -> GGUFContents {
    let stored = base.values.checkpoint
    let plan = try planGGUF(
      config: config, tensors: source.tensors, directoryName: model.directoryName
    ) { _ throws(Failure) in nil }
    let planned = try PlannedSource(source, plan.weights)
    let plain = try GGUFContents.tensors(of: planned)
    let places = planned.tensors.map { stored.index(of: $0.name) }
    // What the base does not have comes last.
    let sequence = places.indices.sorted { (places[$0] ?? .max, $0) < (places[$1] ?? .max, $1) }
    let embedding = stored.index(of: TensorName("token_embd.weight")).map { stored.tensors[$0].type }
    var tensors: [GGUFTensor] = []
    var origins: [Int?] = []
    var fixed: Set<Int> = []
    for (position, index) in sequence.enumerated() {
      let place = places[index]
      let info = planned.tensors[index]
      let weight = plan.weights[index]
      var type = place.map { stored.tensors[$0].type } ?? plain[index].type
      // An output that was tied so far is as the embedding was.
      if place == nil, info.shape.count == 2, let embedding { type = embedding }
      tensors.append(try GGUFTensor(name: info.name, type: type, shape: info.shape))
      let isKept = weight.source.positions.allSatisfy { !merged.source.items[order[$0]].isChanged }
      let hasShape = place.map { stored.tensors[$0].shape == info.shape } ?? false
      origins.append(isKept && hasShape ? place : nil)
      if weight.isAlwaysF32 || info.shape.count < 2 || !type.isReal { fixed.insert(position) }
    }
    var metadata = try metadata(stored.metadata, plan)
    let templateWarnings = try setChatTemplates(&metadata)
    return GGUFContents(
      source: SortedSource(planned, order: sequence), tensors: tensors, fixed: fixed, metadata: metadata,
      stored: stored, origins: origins, warnings: base.warnings + plan.warnings + templateWarnings,
      path: model.checkpoint.path, identities: model.checkpoint.identities,
      checkUnchanged: { () throws(Failure) in try base.checkUnchanged() }, quantization: nil, originalNames: { [:] },
      located: { model.located($0) })
  }

  private func metadata(_ old: GGUFMetadata, _ plan: GGUFModelPlan) throws(Failure) -> GGUFMetadata {
    var metadata = old
    if merged.vocabularySize == nil, merged.replicatedLayers == nil { return metadata }
    // Counts of layers, and lists that have an element for each.
    for (key, value) in plan.metadata where key.hasPrefix(plan.family.architecture + ".") { metadata[key] = value }
    guard let size = merged.vocabularySize else { return metadata }
    let tokens = "tokenizer.ggml.tokens"
    if try metadata.array(tokens)?.count == size { return metadata }
    guard side.files.contains(where: { $0.name == "tokenizer.json" || $0.name == "tokenizer.model" }) else {
      throw Failure(
        .missing,
        "an adapter makes the vocabulary \(size) tokens large and has no tokenizer beside it that says what the new ones are",
        file: model.checkpoint.path)
    }
    let tokenizer = try ggufTokenizer(
      modelType: config["model_type"]?.string ?? plan.family.name, config: config, fileNames: side.names,
      sideFile: sideFile)
    for key in metadata.pairs.map(\.key) where key.hasPrefix("tokenizer.") { metadata[key] = nil }
    for (key, value) in tokenizer.pairs { metadata[key] = value }
    return metadata
  }
}

extension StoredModel {
  /// The file that holds a logical tensor, or the codes of one.
  fileprivate func file(of position: Int) -> String { checkpoint.location(of: logical.items[position].payload).file }
}
