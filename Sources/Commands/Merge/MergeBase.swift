import Adapters
import Architectures
import Bytes
import Checkpoints
import Quantization
import Tensors
import Writing

/// The base of a merge: its weights as adapters saw them, and what the adapters' keys call them.
package struct MergeBase {
  let model: BaseModel
  /// Whether each of the base's tensors is a 4-bit weight.
  let isPacked: [Bool]
  /// Weights of `Conv1D`, and those of them that have been turned to `[outputs, inputs]` or lie so.
  let conv1D: Set<Int>
  private let origins: [StoredOrigin]

  /// - Parameters:
  ///   - trainedAs: merge onto what this quantization leaves of the weights.
  ///   - isQuantizedAgain: whether linear weights are to be quantized after the merge, and therefore have to lie
  ///     `[outputs, inputs]`.
  init(_ source: StoredModel, trainedAs: Quantize.Code?, isQuantizedAgain: Bool) throws(Failure) {
    let values = DequantizedSource(source.logical)
    let isPacked = values.tensors.indices.map(values.isPacked)
    let conv1D = source.transposedWeights
    var turned: Set<Int> = []
    var base: any TensorSource = values
    var simulated: Set<Int> = []
    if let trainedAs {
      guard let format = FourBitFormat(code: FourBitCode(trainedAs)) else {
        throw Failure(.internal, "no format of block size 64")
      }
      simulated = source.quantizedWeights
      let turns = simulated.intersection(conv1D)
      if !turns.isEmpty { base = try TransposedSource(base, turns) }
      base = SimulatedSource(base, weights: simulated, format: format)
      turned = turns
    }
    // Plain ones lie [inputs, outputs], 4-bit ones [outputs, inputs]; the output's kind decides which is wanted.
    let turnsBack = conv1D.filter { index in
      let isOutputsFirst = isPacked[index] != turned.contains(index)
      return isOutputsFirst != isQuantizedAgain
    }
    if !turnsBack.isEmpty { base = try TransposedSource(base, turnsBack) }
    let names = source.names
    let stacksTurned = ["gpt_oss", "llama4", "llama4_text"].contains(source.configuration.modelType ?? "")
    let entries = names.places.enumerated().map { index, place in
      let isStack = values.tensors[index].shape.count == 3
      var isTransposed: Bool? = names.isKnown ? conv1D.contains(index) && !isQuantizedAgain : nil
      if isStack { isTransposed = stacksTurned }
      return BaseModel.Entry(
        parameter: place.parameter,
        part: place.part.map { BaseModel.Part(expert: $0.expert, index: $0.index, count: $0.count) },
        isTransposed: isTransposed, isRouter: place.isRouter)
    }
    var model = BaseModel(
      source: base, entries: entries, basePrefix: names.basePrefix, tiesEmbeddings: names.tiesEmbeddings,
      outputEmbedding: names.outputEmbedding)
    model.headClasses = headClasses(beside: source.configuration.architecture)
    self.model = model
    self.isPacked = isPacked
    self.conv1D = conv1D
    let changed = simulated.union(turned).union(turnsBack)
    origins = values.tensors.indices.map { index in
      let origin = values.origin(of: index)
      guard changed.contains(index), case .stored(let stored) = origin else { return origin }
      return .derived([stored])
    }
  }

  /// Which stored tensors a tensor of the result comes from.
  func origin(of item: MergedTensor) -> StoredOrigin {
    guard let index = item.baseIndex else { return .derived([]) }
    guard case .stored(let stored) = origins[index] else { return origins[index] }
    let isSame = !item.isChanged && model.source.tensors[index].type == item.info.type
    return isSame ? .stored(stored) : .traced(stored)
  }
}

extension RunInputs {
  /// A model, and adapters beside it.
  init(_ model: StoredModel, _ adapters: [Adapter]) {
    self.init(
      identities: model.identities + adapters.flatMap(\.identities), others: adapters.flatMap(\.files),
      checkUnchanged: model.checkpoint.checkUnchanged)
  }
}
