import Bytes
import Tensors

extension MergePlanner {
  /// Where the base uses one tensor as input and output embedding, an adapter may have changed one of the two.
  mutating func tie() throws(Failure) {
    try separate()
    try checkVocabulary()
  }

  private var head: Int? {
    slots.firstIndex {
      $0.parameter == base.outputEmbedding + ".weight" || $0.name.string == base.outputEmbedding + ".weight"
    }
  }

  private mutating func separate() throws(Failure) {
    guard base.tiesEmbeddings, let embedding = inputEmbedding else { return }
    let head = head
    let isHeadChanged = try head.map { (head) throws(Failure) in try isChanged(head, apartFrom: embedding) } ?? false
    // Rows for single tokens are shared by both sides in PEFT too.
    let isEmbeddingReplaced = slots[embedding].replacement != nil && !isCopy(embedding)
    let isEmbeddingChanged = !slots[embedding].deltas.isEmpty || isEmbeddingReplaced
    let areReplacedAlike =
      slots[embedding].deltas.isEmpty && (head.map { slots[$0].replacement != nil } ?? false)
    let follows = !isHeadChanged && (areReplacedAlike || adapters.contains { $0.configuration.tiesWeights })
    if follows || !isHeadChanged && !isEmbeddingChanged {
      // A copy of the head in the file must not be left behind.
      if let head, slots[embedding].isChanged { follow(embedding, with: head) }
      return
    }
    let own = head ?? appendHead(copying: embedding)
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
    guard !slots[embedding].rows.isEmpty, slots[own].rows.isEmpty else { return }
    slots[own].rows = slots[embedding].rows
    // The head's own factors lie around the rows that it shares with the embedding.
    slots[own].rowsComeFirst = !slots[own].deltas.isEmpty
    if slots[own].rowsComeFirst, let delta = slots[own].deltas.first(where: { $0.magnitude != nil }) {
      throw Failure(
        .unsupported, "has DoRA on the output embedding, whose tied rows are trained too; merge it with PEFT",
        file: delta.magnitude?.adapter.path)
    }
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

  // MARK: - New rows

  /// Makes an adapter's copy of one tied embedding stand for the other too: an adapter of the head alone brings a
  /// copy of the rows that both had when training began.
  mutating func shareStorage() throws(Failure) {
    sharesStorage = true
    guard base.tiesEmbeddings, let embedding = inputEmbedding, let head else { return }
    if isCopy(embedding), slots[head].replacement == nil { inherit(head, from: embedding) }
    guard isCopy(head), slots[embedding].replacement == nil, let copy = slots[head].replacement else { return }
    // Most copies are of what is there.
    if slots[head].shape == slots[embedding].shape,
      try adapters[copy.adapter].hasSameNumbers(copy.tensor, as: slots[embedding].base, of: base.source)
    {
      return
    }
    inherit(embedding, from: head)
  }

  /// Gives one side what an adapter has of the other, unless that is what training made of it.
  mutating func inherit(_ slot: Int, from other: Int) {
    guard isCopy(other), let copy = slots[other].replacement else { return }
    slots[slot].replacement = copy
    slots[slot].shape = slots[other].shape
    record(slot, copy.adapter, scale: nil)
  }

  /// Whether an adapter replaces a tensor by what it was before it was adapted.
  private func isCopy(_ slot: Int) -> Bool {
    guard let replacement = slots[slot].replacement else { return false }
    let adapter = adapters[replacement.adapter]
    let name = adapter.tensors[replacement.tensor].name.string
    return !adapter.configuration.saves(AdapterKey(name).module) && !name.contains("modules_to_save")
  }

  /// Input and output embedding have as many rows.
  private func checkVocabulary() throws(Failure) {
    guard let embedding = inputEmbedding, let head else { return }
    for (resized, other, kind) in [(embedding, head, "output"), (head, embedding, "input")] {
      guard slots[resized].shape.first != base.source.tensors[slots[resized].base].shape.first,
        slots[other].shape.first != slots[resized].shape.first, let replacement = slots[resized].replacement
      else { continue }
      throw adapters[replacement.adapter].failure(
        "has \(slots[resized].shape.first ?? 0) tokens, the \(kind) embedding '\(slots[other].name.string)' "
          + "\(slots[other].shape.first ?? 0); the adapter must have both, or the new rows of one are lost (train with "
          + "both in modules_to_save, or on a base that was saved with its new tokens)",
        tensor: replacement.tensor)
    }
  }
}
