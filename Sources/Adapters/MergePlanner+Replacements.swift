import Bytes
import Tensors

extension MergePlanner {
  // MARK: - Whole tensors

  /// `modules_to_save`, biases, and embeddings that were resized or saved beside their deltas.
  mutating func placeReplacements() throws(Failure) {
    for (number, adapter) in adapters.enumerated() {
      if !adapter.replacements.isEmpty, settings.weight(number) != 1 {
        warnings.append(
          "\(list: [adapter.path]): --weight scales deltas; "
            + (adapter.replacements.count == 1
              ? "the 1 tensor that the adapter has whole is taken as it is"
              : "the \(adapter.replacements.count) tensors that the adapter has whole are taken as they are"))
      }
      for replacement in adapter.replacements { try place(replacement, of: number) }
    }
    try shareStorage()
  }

  private mutating func place(_ replacement: Adapter.Replacement, of number: Int) throws(Failure) {
    let adapter = adapters[number]
    let info = adapter.tensors[replacement.tensor]
    let isWeight = replacement.parameter == "weight"
    guard isWeight || replacement.parameter == "bias" || home(replacement.path, replacement.parameter) != nil else {
      throw Failure(
        .unsupported, "belongs to no kind of adapter that can be merged",
        file: adapter.weightsPath,
        tensor: info.name.string)
    }
    guard
      case .whole(let slot)? = home(replacement.path, replacement.parameter)
        ?? newHead(replacement.path, replacement.parameter) ?? newModule(replacement, of: number)
    else {
      unmatched.append((number, replacement.tensor))
      return
    }
    let old = slots[slot].shape
    let isResized = old.count == 2 && info.shape.count == 2 && old[1] == info.shape[1] && isVocabulary(slot)
    guard old == info.shape || isResized else {
      throw adapter.failure(
        "has shape \(info.shape), the base's '\(slots[slot].name.string)' \(old)", tensor: replacement.tensor)
    }
    if let other = slots[slot].replacement {
      // Adapters of embeddings bring a copy of the base's with them.
      if try adapter.hasSameValues(replacement.tensor, as: other.tensor, of: adapters[other.adapter]) { return }
      throw adapter.failure(
        "replaces '\(slots[slot].name.string)', which '\(adapters[other.adapter].name)' replaces too",
        tensor: replacement.tensor)
    }
    slots[slot].replacement = (number, replacement.tensor)
    slots[slot].shape = info.shape
    record(slot, number, scale: nil)
  }

  /// Whether its rows are tokens, or classes, so that their number may change.
  private func isVocabulary(_ slot: Int) -> Bool {
    let parameter = slots[slot].parameter
    return slot == inputEmbedding || parameter == base.outputEmbedding + ".weight"
      || slots[slot].name.string == base.outputEmbedding + ".weight"
  }

  /// The output embedding of a base that ties it and does not store it: it starts as the input embedding.
  mutating func newHead(_ path: String, _ parameter: String) -> Home? {
    guard parameter == "weight", base.tiesEmbeddings, path == base.outputEmbedding || path == "lm_head",
      let embedding = inputEmbedding
    else { return nil }
    return .whole(appendHead(copying: embedding))
  }

  mutating func appendHead(copying embedding: Int) -> Int {
    let name = base.outputEmbedding + ".weight"
    var slot = Slot(
      name: TensorName(name), parameter: name, part: nil, isTransposed: false, base: slots[embedding].base,
      shape: base.source.tensors[slots[embedding].base].shape)
    slot.part = nil
    slots.append(slot)
    register(slots.count - 1)
    if sharesStorage { inherit(slots.count - 1, from: embedding) }
    return slots.count - 1
  }

  /// A module that the base does not have, such as the head of a classifier, from `modules_to_save`.
  private mutating func newModule(_ replacement: Adapter.Replacement, of number: Int) -> Home? {
    let adapter = adapters[number]
    let last = replacement.path.split(separator: ".").last.map(String.init) ?? ""
    let isHead =
      ["SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"].contains(adapter.configuration.taskType ?? "")
      && ["score", "classifier", "qa_outputs"].contains(last)
    guard adapter.configuration.saves(replacement.path) || isHead,
      // The dtype of the model is that of its embedding.
      let like = inputEmbedding ?? slots.indices.first
    else { return nil }
    let name = "\(replacement.path).\(replacement.parameter)"
    slots.append(
      Slot(
        name: TensorName(name), parameter: name, part: nil, isTransposed: false, base: slots[like].base,
        shape: adapter.tensors[replacement.tensor].shape))
    register(slots.count - 1)
    noteHead(name, replacement, of: adapter, isHead: isHead)
    return .whole(slots.count - 1)
  }

  // MARK: - Rows of embeddings

  mutating func placeTokenRows() throws(Failure) {
    for (number, adapter) in adapters.enumerated() {
      for entry in adapter.tokenRows {
        guard case .whole(let slot)? = home(entry.path, "weight") ?? newHead(entry.path, "weight") else {
          unmatched.append((number, entry.tensor))
          continue
        }
        let rows = adapter.configuration.trainableTokens.first { token in
          token.module.isEmpty || entry.path == token.module || entry.path.hasSuffix("." + token.module)
        }
        guard let rows = rows?.rows ?? rowsOfTied(entry.path, adapter) else {
          throw adapter.failure(
            "has rows, but trainable_token_indices says nothing of '\(entry.path)'", tensor: entry.tensor)
        }
        try place(rows, entry, number, slot)
      }
    }
  }

  private mutating func place(
    _ rows: [Int], _ entry: Adapter.TokenRows, _ number: Int, _ slot: Int
  ) throws(Failure) {
    let adapter = adapters[number]
    let shape = adapter.tensors[entry.tensor].shape
    let weight = slots[slot].shape
    guard weight.count == 2, shape == [rows.count, weight[1]] else {
      throw adapter.failure(
        "has shape \(shape), expected [\(rows.count), \(weight.last ?? 0)]: a row for each of trainable_token_indices",
        tensor: entry.tensor)
    }
    if let beyond = rows.first(where: { $0 >= weight[0] }) {
      throw adapter.failure(
        "trainable_token_indices names token \(beyond), the base has \(weight[0])", tensor: entry.tensor)
    }
    for other in slots[slot].rows {
      guard let both = rows.first(where: { other.rowOf[$0] != nil }) else { continue }
      throw adapter.failure("has a row for token \(both), as '\(other.adapter.name)' has", tensor: entry.tensor)
    }
    var rowOf: [Int: Int] = [:]
    for (own, row) in rows.enumerated() { rowOf[row] = own }
    slots[slot].rows.append((adapter, entry.tensor, rowOf))
    record(slot, number, scale: nil)
  }

  /// The tied head has the embedding's rows, and PEFT saves them twice when it saves embeddings.
  private func rowsOfTied(_ path: String, _ adapter: Adapter) -> [Int]? {
    guard base.tiesEmbeddings, path == base.outputEmbedding || path == "lm_head", let embedding = inputEmbedding else {
      return nil
    }
    let own = slots[embedding].parameter.dropLast(".weight".count)
    return adapter.configuration.trainableTokens.first { own == $0.module || own.hasSuffix("." + $0.module) }?.rows
  }

  // MARK: - The embedding

  /// The slot of the input embedding, by the names that model classes give it.
  var inputEmbedding: Int? {
    EmbeddingNames.all.lazy.compactMap { name in
      slots.firstIndex { EmbeddingNames.isInput($0.parameter, name) }
    }.first
  }

  var vocabularySize: Int? {
    guard let slot = inputEmbedding, let rows = slots[slot].shape.first,
      rows != base.source.tensors[slots[slot].base].shape.first
    else { return nil }
    return rows
  }
}
