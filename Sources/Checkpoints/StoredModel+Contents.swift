package import Architectures
package import Bytes
package import GGUF
package import JSON
import ModelFamilies
package import Tensors

extension StoredModel {
  /// Refuses what no loader of the model's class takes.
  ///
  /// A GGUF model has been held to its family already; a file without a configuration, and an adapter beside one, are
  /// held to nothing.
  ///
  /// - Returns: what is worth knowing.
  /// - Throws: `malformed`, naming the tensor, what was found and what is wanted.
  package func checkContents() throws(Failure) -> ContentsReport {
    guard checkpoint.directory != nil, !isAdapter, let config else { return ContentsReport() }
    let contents = Contents(logical: logical, config: config, planned: weightPlan)
    var report = contents.report()
    if logical.hasFourBitWeights { for fault in contents.skipListFaults() { report.add(fault) } }
    if let first = report.faults.first {
      let more = report.faultCount > 1 ? " (and \(counted(report.faultCount - 1, "more fault")))" : ""
      let failure = Failure(.malformed, first.problem + more, tensor: first.tensor)
      throw checkpoint.index(of: TensorName(first.tensor)) == nil
        ? failure.located(file: checkpoint.path) : located(failure)
    }
    return report
  }
}

extension ContentsReport {
  /// - Parameter unknown: what has been said already of tensors that the class does not know.
  package func warnings(besides said: [Warning] = []) -> [Warning] {
    if unused.isEmpty || said.contains(where: { $0.contains("to no known module") }) { return warnings }
    return warnings + [
      unused.count == 1
        ? "1 tensor is no parameter of the model, and loaders leave it out: \(names: unused)"
        : "\(unused.count) tensors are no parameters of the model, and loaders leave them out: \(names: unused)"
    ]
  }
}

/// A checkpoint's tensors beside its configuration.
package struct Contents {
  package let logical: LogicalTensors
  package let config: JSONValue
  private let planned: () -> WeightPlan?

  /// - Parameter planned: the weight plan of these tensors, where it is known.
  package init(logical: LogicalTensors, config: JSONValue, planned: @autoclosure @escaping () -> WeightPlan? = nil) {
    self.logical = logical
    self.config = config
    self.planned = planned
  }

  /// Which of the tensors transformers would quantize.
  var weightPlan: WeightPlan {
    planned()
      ?? planWeights(
        logical.items.map(logical.info), configuration: ModelConfiguration(config), target: .transformers5, keep: [])
  }

  /// - Parameter names: other names than those that the tensors are stored under.
  package func report(names: [TensorName]? = nil) -> ContentsReport {
    var infos = logical.items.map(logical.info)
    if let names {
      for index in infos.indices where index < names.count {
        if let info = try? TensorInfo(name: names[index], type: infos[index].type, shape: infos[index].shape) {
          infos[index] = info
        }
      }
    }
    // Other methods have other tensors.
    if case .other = QuantizationMethod(logical, config: config) { return ContentsReport() }
    let configuration = ModelConfiguration(config)
    let isQuantized = logical.items.map(\.isPacked)
    var report = Architectures.checkContents(
      infos, isQuantized: isQuantized, configuration: configuration,
      hasOwnCode: config["auto_map"]?.object?.isEmpty == false, member: member)
    if let fault = unquantized(infos, configuration, isRenamed: names != nil) { report.add(fault) }
    return report
  }

  /// A whole number of the configuration, or whether it turns something on; negative for anything else but null.
  private func member(_ path: String) -> Int? {
    var value: JSONValue? = config
    for name in path.split(separator: ".") {
      // Releases of today state the labels, not how many there are.
      if name == "num_labels", let labels = value?["id2label"], !labels.isNull { return labels.object?.count ?? -1 }
      // An output embedding of another vocabulary than the input's.
      if name == "vocab_size", let other = value?["decoder_vocab_size"]?.int, other != value?["vocab_size"]?.int {
        return -1
      }
      value = value?[String(name)]
    }
    guard let value, !value.isNull else { return nil }
    if path.hasSuffix("position_embedding_type"), let kind = value.string { return kind == "absolute" ? 1 : 0 }
    if path.contains("bias"), let isOn = value.bool { return isOn ? 1 : 0 }
    return value.int ?? -1
  }

  /// The first linear weight in 16 bits of a checkpoint that says that it is in 4, and has none that is.
  private func unquantized(_ infos: [TensorInfo], _ configuration: ModelConfiguration, isRenamed: Bool)
    -> ContentsReport.Fault?
  {
    guard let settings = config["quantization_config"], settings["load_in_4bit"]?.bool == true,
      ["bitsandbytes", nil].contains(settings["quant_method"]?.string), !logical.hasFourBitWeights,
      logical.problems.isEmpty
    else { return nil }
    let skipped = SkipList(settings["llm_int8_skip_modules"]?.array?.compactMap(\.string) ?? [])
    if !skipped.patterns.isEmpty { return nil }
    let plan =
      isRenamed
      ? planWeights(infos, configuration: configuration, target: .transformers5, keep: [])
      : weightPlan
    for (index, disposition) in plan.dispositions.enumerated() {
      guard disposition == .quantize || disposition == .quantizeTransposed else { continue }
      if let module = plan.modules[index], skipped.matches(module) { continue }
      return ContentsReport.Fault(
        tensor: infos[index].name.string,
        problem: "is \(infos[index].type.name), but quantization_config says that the weights are in 4 bits, and none "
          + "is; without that member config.json would be right")
    }
    return nil
  }
}

/// A model in GGUF states its architecture; without it nothing opens it.
package func checkArchitecture(_ values: StoredGGUF) throws(Failure) {
  try checkArchitecture(values.checkpoint.metadata, file: values.checkpoint.files.first?.name)
}

package func checkArchitecture(_ metadata: GGUFMetadata, file: String?) throws(Failure) {
  if let type = try metadata.text("general.type"), type != "model" { return }
  guard try metadata.text("general.architecture") == nil else { return }
  throw Failure(
    .malformed,
    "metadata 'general.architecture' is missing: no loader opens such a model ('nibble edit --set' adds it)",
    file: file)
}
