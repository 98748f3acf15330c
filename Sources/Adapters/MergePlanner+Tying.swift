import Bytes
import Tensors

extension MergePlanner {
  /// Where the base uses one tensor as input and output embedding, an adapter may have changed one of the two.
  mutating func tie() throws(Failure) {
    try checkVocabulary()
    guard base.tiesEmbeddings, let embedding = inputEmbedding else { return }
    let head = slots.firstIndex {
      $0.parameter == base.outputEmbedding + ".weight" || $0.name.string == base.outputEmbedding + ".weight"
    }
    let isHeadChanged = try head.map { (head) throws(Failure) in try isChanged(head, apartFrom: embedding) } ?? false
    // Rows for single tokens are shared by both sides in PEFT too.
    let isEmbeddingChanged = !slots[embedding].deltas.isEmpty || slots[embedding].replacement != nil
    let areReplacedAlike =
      slots[embedding].deltas.isEmpty && (head.map { slots[$0].replacement != nil } ?? false)
    let follows = !isHeadChanged && (areReplacedAlike || adapters.contains { $0.configuration.tiesWeights })
    if follows || !isHeadChanged && !isEmbeddingChanged {
      // A copy of the head in the file must not be left behind.
      if let head, slots[embedding].isChanged { follow(embedding, with: head) }
      return
    }
    let isResized = slots[embedding].shape != base.source.tensors[slots[embedding].base].shape
    if !isHeadChanged, isResized, slots[embedding].deltas.isEmpty {
      // Resized, and saved once for both.
      if let head { follow(embedding, with: head) }
      return
    }
    let own = head ?? appendHead(copying: embedding)
    if slots[own].shape != slots[embedding].shape, !isHeadChanged, let saved = slots[embedding].replacement {
      // Resized, saved once for both, then adapted on one side.
      slots[own].replacement = saved
      slots[own].shape = slots[embedding].shape
      record(own, saved.adapter, scale: nil)
    }
    let name = slots[own].name.string
    staysTied = false
    if isHeadChanged, isEmbeddingChanged {
      warnings.append(
        "input and output embedding were tied and both changed: '\(name)' is written, tie_word_embeddings is false")
    } else if isHeadChanged {
      warnings.append(
        "the adapter changes the output embedding only, which was tied to the input embedding: '\(name)' is written, "
          + "tie_word_embeddings is false")
    } else {
      warnings.append(
        "the adapter changes the input embedding only, to which the output embedding was tied: '\(name)' keeps the base's "
          + "values, tie_word_embeddings is false")
    }
    if !slots[embedding].rows.isEmpty, slots[own].rows.isEmpty { slots[own].rows = slots[embedding].rows }
  }

  private mutating func follow(_ embedding: Int, with head: Int) {
    let name = slots[head].name
    let parameter = slots[head].parameter
    slots[head] = slots[embedding]
    slots[head].name = name
    slots[head].parameter = parameter
  }

  /// Whether an adapter did something to the head that it did not do to the embedding: a tied model may save both.
  private func isChanged(_ head: Int, apartFrom embedding: Int) throws(Failure) -> Bool {
    guard slots[head].isChanged else { return false }
    guard try hasSameDeltas(head, embedding), slots[head].rows.count <= slots[embedding].rows.count else { return true }
    for (own, other) in zip(slots[head].rows, slots[embedding].rows) {
      guard own.adapter === other.adapter, own.rowOf == other.rowOf,
        try own.adapter.hasSameValues(own.tensor, as: other.tensor, of: other.adapter)
      else { return true }
    }
    guard let own = slots[head].replacement else { return false }
    guard let other = slots[embedding].replacement else { return true }
    return try !adapters[own.adapter].hasSameValues(own.tensor, as: other.tensor, of: adapters[other.adapter])
  }

  /// Whether the head's factors are those of the embedding, turned: what ensure_weight_tying keeps equal.
  private func hasSameDeltas(_ head: Int, _ embedding: Int) throws(Failure) -> Bool {
    if slots[head].deltas.isEmpty { return true }
    guard slots[head].deltas.count == slots[embedding].deltas.count else { return false }
    for (own, other) in zip(slots[head].deltas, slots[embedding].deltas) {
      guard own.magnitude == nil, other.magnitude == nil, own.scale == other.scale, let one = own.factors.terms.first,
        let two = other.factors.terms.first, own.factors.combination == nil, one.adapter === two.adapter,
        one.adapter.configuration.tiesWeights, two.shape.inputs == one.shape.outputs,
        two.shape.outputs == one.shape.inputs, one.shape.rank == two.shape.rank
      else { return false }
      let (a, b) = try one.stored()
      let (otherA, otherB) = try two.stored()
      let shape = one.shape
      for k in 0..<shape.rank {
        for input in 0..<shape.inputs where a[k * shape.inputs + input] != otherB[input * shape.rank + k] {
          return false
        }
        for output in 0..<shape.outputs where b[output * shape.rank + k] != otherA[k * shape.outputs + output] {
          return false
        }
      }
    }
    return true
  }

  /// A resized input embedding needs an output embedding with as many rows.
  private func checkVocabulary() throws(Failure) {
    guard let rows = vocabularySize, let embedding = inputEmbedding, !base.tiesEmbeddings,
      let head = slots.firstIndex(where: { $0.parameter == base.outputEmbedding + ".weight" }),
      slots[head].shape.first != rows, let replacement = slots[embedding].replacement
    else { return }
    throw adapters[replacement.adapter].failure(
      "has \(rows) tokens, the output embedding '\(slots[head].name.string)' \(slots[head].shape.first ?? 0); the adapter "
        + "must have both", tensor: replacement.tensor)
  }
}
