import Adapters
import Bytes
import Checkpoints
import JSON
import Tensors
import Writing

/// A merge into a gpt-oss model whose experts are written in MXFP4: those that no adapter touches as they are stored,
/// where they are in it already.
struct MergeExperts {
  let steps: [Step]
  let source: any TensorSource
  let encoders: [any TensorEncoder]
  let experts: GptOssExperts

  /// Positions of the encoders, by their use.
  private static let (copying, copyingFinite, quantizing, quantizingComputed, keeping) = (0, 1, 2, 3, 4)

  init(_ model: StoredModel, _ base: MergeBase, _ merged: MergePlan) throws(Failure) {
    try GptOssExperts.check(model)
    let items = merged.source.items
    let stored = model.checkpoint.files.checkpoint
    let isInMXFP4 = model.checkpoint.dequantizes == "MXFP4"
    /// Blocks and scales of the base, of a stack as it is called there.
    func parts(_ item: MergedTensor) -> (blocks: Int, scales: Int)? {
      let name = item.baseIndex.map { model.checkpoint.tensors[$0].name } ?? item.info.name
      guard isInMXFP4, let blocks = stored.index(of: name + "_blocks"), let scales = stored.index(of: name + "_scales")
      else { return nil }
      return (blocks, scales)
    }
    // What such a base has in 16 bits stays so.
    let staying = isInMXFP4 ? Set(items.indices.filter { parts(items[$0]) == nil }) : []
    experts = GptOssExperts(merged.source.tensors, staying: staying)
    var kept: [TensorName: (blocks: Int, scales: Int)] = [:]
    var turned: Set<Int> = []
    for index in experts.chosen {
      if !items[index].isChanged, let own = parts(items[index]) {
        kept[items[index].info.name] = own
      } else {
        turned.insert(index)
      }
    }
    steps = items.enumerated().map { index, item in
      var origin = base.origin(of: item)
      let encoder: Int
      if turned.contains(index) {
        encoder = model.checkpoint.dequantizes != nil || item.isChanged ? Self.quantizingComputed : Self.quantizing
        if let single = origin.single { origin = .derived([single]) }
      } else if kept[item.info.name] != nil {
        encoder = Self.keeping
        if let single = origin.single { origin = .derived([single]) }
      } else {
        encoder = item.hasSums ? Self.copying : Self.copyingFinite
      }
      return Step(tensor: index, encoder: encoder, origin: origin)
    }
    source = turned.isEmpty ? merged.source : try TransposedSource(merged.source, turned)
    encoders = [
      CopyEncoder(), CopyEncoder(fate: "merged"), ExpertEncoder(takesMatrices: false),
      ExpertEncoder(takesMatrices: true), StoredExpertEncoder(stored, parts: kept),
    ]
  }
}
