import Adapters
import Architectures
import Bytes
import Checkpoints
import JSON
import PackedWeights
import Quantization
import Tensors
import Writing

/// A merge whose linear weights are quantized as they come: the same bytes as merging first and quantizing then.
struct MergeQuantization {
  let steps: [Step]
  let source: any TensorSource
  let scheme: FourBitScheme
  /// `quantization_config`.
  let configuration: JSONValue
  let warnings: [Warning]
  /// Nil where what was in 4 bits stays so.
  let dispositions: [Disposition]?

  init(
    _ model: StoredModel, _ base: MergeBase, _ merged: MergePlan, code: FourBitCode,
    configuration: ModelConfiguration?
  ) throws(Failure) {
    if let existing = try Self.existing(model) {
      // What was in 4 bits stays so, with the same block size, statistics and list of skipped modules.
      var steps: [Step] = []
      for (index, item) in merged.source.items.enumerated() {
        let isPacked = item.baseIndex.map { base.isPacked[$0] } ?? false
        let encoder =
          isPacked
          ? FourBitPreparation.quantizing : item.hasSums ? FourBitPreparation.copying : FourBitPreparation.copyingFinite
        steps.append(Step(tensor: index, encoder: encoder, origin: base.origin(of: item)))
      }
      guard let format = FourBitFormat(code: code, blockSize: existing.scheme.format.blockSize) else {
        throw Failure(.internal, "no format of block size \(existing.scheme.format.blockSize)")
      }
      (self.steps, source) = (steps, merged.source)
      scheme = FourBitScheme(
        format: format, usesDoubleQuantization: existing.scheme.usesDoubleQuantization, storage: existing.scheme.storage
      )
      var settings = existing.configuration
      settings["bnb_4bit_quant_type"] = .string(code.rawValue)
      self.configuration = settings
      warnings = []
      dispositions = nil
      return
    }
    var quantize = Quantize()
    quantize.code = code == .nf4 ? .nf4 : .fp4
    guard let format = FourBitFormat(code: code) else { throw Failure(.internal, "no format of block size 64") }
    let weights = planWeights(
      merged.source.tensors, configuration: configuration ?? ModelConfiguration(), target: .transformers5, keep: [])
    if let refusal = weights.refusal { throw Failure(.unsupported, refusal, file: model.checkpoint.path) }
    var preparation = FourBitPreparation(merged.source, copiedF32: model.vectorType) {
      base.origin(of: merged.source.items[$0])
    }
    for (index, disposition) in weights.dispositions.enumerated() {
      // Conv1D weights were turned before the merge.
      try preparation.add(
        index, disposition, isOriented: true, mustBeFinite: !merged.source.items[index].hasSums)
    }
    steps = preparation.steps
    source = try preparation.source()
    scheme = FourBitScheme(format: format, usesDoubleQuantization: true, storage: .u8)
    self.configuration = quantize.quantizationConfig(skip: weights.skipModules)
    dispositions = weights.dispositions
    warnings = weights.warnings + preparation.warnings + quantize.expertWarnings(weights)
  }

  /// How a base in 4 bits is quantized.
  private static func existing(_ model: StoredModel) throws(Failure) -> (
    scheme: FourBitScheme, configuration: JSONValue
  )? {
    guard model.quantizationMethod == .fourBit else { return nil }
    var scheme: FourBitScheme?
    for item in model.logical.items {
      guard let weight = item.fourBit else { continue }
      let own = FourBitScheme(
        format: weight.format, usesDoubleQuantization: weight.state.nestedOffset != nil,
        storage: model.checkpoint.tensors[weight.codes].type)
      if let scheme, scheme != own {
        throw Failure(
          .unsupported, "is quantized in another way than the weights before it; merge without --scheme",
          tensor: weight.info.name.string)
      }
      scheme = own
    }
    guard let scheme, let configuration = model.config?["quantization_config"] else { return nil }
    return (scheme, configuration)
  }
}
