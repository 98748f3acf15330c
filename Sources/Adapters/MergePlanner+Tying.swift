import Bytes
import Safetensors
import Tensors

extension MergePlanner {
  // MARK: - Input and output embedding

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

  // MARK: - Layers

  /// `layer_replication`: the model that was trained repeats layers of the base.
  mutating func replicateLayers() throws(Failure) {
    let wanted = adapters.filter { !$0.configuration.layerReplication.isEmpty }
    guard let first = wanted.first else { return }
    let ranges = first.configuration.layerReplication
    guard wanted.count == adapters.count, wanted.allSatisfy({ $0.configuration.layerReplication == ranges }) else {
      throw Failure(
        .malformed, "the adapters do not agree in layer_replication: they were trained on different models",
        file: first.path)
    }
    guard let stack = mainStack() else {
      throw Failure(
        .unsupported, "has layer_replication, but the base's layers are not to be found by name", file: first.path)
    }
    let layers = ranges.flatMap { Array($0) }
    if let beyond = layers.first(where: { $0 >= stack.count }) {
      throw Failure(
        .malformed, "layer_replication names layer \(beyond), the base has \(stack.count)",
        file: "\(first.path)/\(Adapter.configName)")
    }
    let numbers = slots.map { Self.layer(of: $0.parameter, in: stack.prefix)?.number }
    var byLayer: [Int: [Slot]] = [:]
    for (slot, number) in zip(slots, numbers) {
      if let number { byLayer[number, default: []].append(slot) }
    }
    var result: [Slot] = []
    var isDone = false
    for (slot, number) in zip(slots, numbers) {
      guard number != nil else {
        result.append(slot)
        continue
      }
      if isDone { continue }
      isDone = true
      for (new, old) in layers.enumerated() {
        for slot in byLayer[old] ?? [] {
          var copy = slot
          copy.parameter = Self.renumbered(slot.parameter, new) ?? slot.parameter
          copy.name = TensorName(Self.renumbered(slot.name.string, new) ?? slot.name.string)
          result.append(copy)
          guard result.count <= SafetensorsHeader.tensorLimit else {
            throw Failure(
              .malformed, "layer_replication makes more than \(SafetensorsHeader.tensorLimit) tensors", file: first.path
            )
          }
        }
      }
    }
    slots = result
    isReplicated = true
    layerCount = layers.count
    warnings.append("layers are replicated: the base's \(stack.count) become \(layers.count)")
  }

  /// The longest list of layers.
  private func mainStack() -> (prefix: String, count: Int)? {
    var highest: [String: Int] = [:]
    for slot in slots {
      guard let (prefix, number) = Self.firstNumber(in: slot.parameter) else { continue }
      highest[prefix] = max(highest[prefix] ?? 0, number + 1)
    }
    return highest.max { ($0.value, $1.key) < ($1.value, $0.key) }.map { ($0.key, $0.value) }
  }

  private static func firstNumber(in name: String) -> (prefix: String, number: Int)? {
    let parts = name.split(separator: ".", omittingEmptySubsequences: false)
    guard let at = parts.firstIndex(where: { Int($0) != nil }), at > 0, let number = Int(parts[at]), number >= 0,
      number < 100_000
    else { return nil }
    return (parts[..<at].joined(separator: "."), number)
  }

  private static func layer(of name: String, in prefix: String) -> (prefix: String, number: Int)? {
    firstNumber(in: name).flatMap { $0.prefix == prefix ? $0 : nil }
  }

  private static func renumbered(_ name: String, _ number: Int) -> String? {
    var parts = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
    guard let at = parts.firstIndex(where: { Int($0) != nil }) else { return nil }
    parts[at] = String(number)
    return parts.joined(separator: ".")
  }
}
