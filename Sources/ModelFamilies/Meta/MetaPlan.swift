package import Bytes
package import JSON
package import PyTorch
import Tensors

/// A checkpoint in the names and the order of Meta's own code, as the model of transformers that it is.
package struct MetaPlan: Sendable {
  /// What is wanted of each part, in the order of the first file.
  package let wholes: [ConsolidatedCheckpoint.Whole]
  /// The tensors of transformers, in the same order: each is made of the whole in its place.
  package let weights: [PlannedWeight]
  /// Complete but for `dtype`.
  package let config: JSONValue
  package let warnings: [Warning]

  private typealias Joining = ConsolidatedCheckpoint.Joining

  /// What one name of Meta's stands for.
  private struct Rule {
    let name: String
    let shape: [Int]
    let joining: Joining
    var transform = WeightTransform.none
  }

  private static let embedding = "tok_embeddings.weight"
  private static let head = "output.weight"

  /// - Parameter contents: of the first file; the others have the same.
  /// - Throws: `unsupported` for a name that no such model has, `malformed` when a tensor is missing or has another
  ///   shape than `params.json` says.
  package init(_ parameters: MetaParameters, _ contents: ConsolidatedCheckpoint.Contents) throws(Failure) {
    let tensors = contents.tensors
    let count = contents.fileCount
    var positions: [String: Int] = [:]
    for (position, tensor) in tensors.enumerated() { positions[tensor.name.string] = position }
    guard let embedding = positions[Self.embedding] else { throw Self.missing(Self.embedding) }
    let head = positions[Self.head]
    let vocabulary = try Self.vocabulary(parameters, head.map { tensors[$0] }, tensors[embedding], count)
    // Who loads it ties them again.
    let isTied = head.map { head in contents.tied.contains { $0.contains(head) && $0.contains(embedding) } } ?? true
    if head == nil, parameters.tiesEmbeddings == false { throw Self.missing(Self.head) }

    let rules = Self.rules(parameters, vocabulary, tensors[embedding], count)
    var wholes: [ConsolidatedCheckpoint.Whole] = []
    var weights: [PlannedWeight] = []
    for (position, tensor) in tensors.enumerated() {
      if Self.isAngles(tensor.name.string) || isTied && position == head { continue }
      guard let name = NumberedName(tensor.name.string), name.numbers.count < 2, let rule = rules[name.pattern] else {
        throw Failure(
          .unsupported, "is no tensor of Llama or Mistral as their own code calls them", tensor: tensor.name.string)
      }
      if let layer = name.numbers.first, layer >= parameters.layers {
        throw Failure(
          .malformed, "is of layer \(layer), by \(MetaParameters.fileName) there are \(parameters.layers) layers",
          tensor: tensor.name.string)
      }
      try Self.check(tensor, rule, count)
      weights.append(
        PlannedWeight(
          name: TensorName(NumberedName.fill(rule.name, layer: name.numbers.first ?? 0)), shape: rule.shape,
          source: .stored(wholes.count), transform: rule.transform))
      wholes.append(.init(part: position, shape: rule.shape, joining: rule.joining))
    }
    let patterns = rules.keys.filter { NumberedName.count(of: $0) > 0 }.sorted()
    for layer in 0..<parameters.layers {
      for pattern in patterns {
        let name = NumberedName.fill(pattern, layer: layer)
        if positions[name] == nil { throw Self.missing(name) }
      }
    }
    if positions["norm.weight"] == nil { throw Self.missing("norm.weight") }
    self.wholes = wholes
    self.weights = weights
    let made = MetaConfiguration(parameters, vocabulary: vocabulary, isTied: isTied)
    config = made.config
    warnings = made.warnings
  }

  private static func missing(_ name: String) -> Failure {
    Failure(.malformed, "is missing, although \(MetaParameters.fileName) asks for it", tensor: name)
  }

  /// Tables that are computed, in files of Llama 1.
  private static func isAngles(_ name: String) -> Bool { name == "rope.freqs" || name.hasSuffix(".rope.freqs") }

  // MARK: - Shapes

  /// The number of tokens: what `params.json` says, or else the rows of the output matrix or the embedding.
  private static func vocabulary(
    _ parameters: MetaParameters, _ head: TensorInfo?, _ embedding: TensorInfo, _ count: Int
  ) throws(Failure) -> Int {
    if let stated = parameters.vocabulary { return stated }
    if let head, let rows = head.shape.first, rows <= Int(Int32.max) { return rows * count }
    guard embedding.shape.count == 2, embedding.shape[0] <= Int(Int32.max) else {
      throw Failure(.malformed, "has shape \(embedding.shape), expected is a matrix", tensor: embedding.name.string)
    }
    return embedding.shape[0] * (embedding.shape[1] == parameters.hidden ? count : 1)
  }

  private static func rules(
    _ parameters: MetaParameters, _ vocabulary: Int, _ embedding: TensorInfo, _ count: Int
  ) -> [String: Rule] {
    let hidden = parameters.hidden
    let queries = parameters.heads * parameters.headLength
    let keys = parameters.keyHeads * parameters.headLength
    // Up to Llama 2 each part had some columns of all tokens.
    let hasColumns = count > 1 && embedding.shape.last != hidden
    let (from, to) = ("layers.{layer}.", "model.layers.{layer}.")
    func norm(_ name: String) -> Rule { Rule(name: name + ".weight", shape: [hidden], joining: .copies) }
    func rows(_ name: String, _ rows: Int) -> Rule {
      Rule(name: to + name + ".weight", shape: [rows, hidden], joining: .rows)
    }
    func columns(_ name: String, _ columns: Int) -> Rule {
      Rule(name: to + name + ".weight", shape: [hidden, columns], joining: .columns)
    }
    func heads(_ name: String, _ rows: Int, _ heads: Int, _ transform: WeightTransform) -> Rule {
      Rule(
        name: to + "self_attn." + name + ".weight", shape: [rows, hidden], joining: .heads(heads), transform: transform)
    }
    return [
      self.embedding: Rule(
        name: "model.embed_tokens.weight", shape: [vocabulary, hidden], joining: hasColumns ? .columns : .rows),
      head: Rule(name: "lm_head.weight", shape: [vocabulary, hidden], joining: .rows),
      "norm.weight": norm("model.norm"),
      from + "attention_norm.weight": norm(to + "input_layernorm"),
      from + "ffn_norm.weight": norm(to + "post_attention_layernorm"),
      from + "attention.wq.weight": heads("q_proj", queries, parameters.heads, .unpermuteHeads(parameters.heads)),
      from + "attention.wk.weight": heads("k_proj", keys, parameters.keyHeads, .unpermuteHeads(parameters.keyHeads)),
      from + "attention.wv.weight": heads("v_proj", keys, parameters.keyHeads, .none),
      from + "attention.wo.weight": columns("self_attn.o_proj", queries),
      from + "feed_forward.w1.weight": rows("mlp.gate_proj", parameters.feedForward),
      from + "feed_forward.w2.weight": columns("mlp.down_proj", parameters.feedForward),
      from + "feed_forward.w3.weight": rows("mlp.up_proj", parameters.feedForward),
    ]
  }

  /// That so many parts of this shape are the whole.
  private static func check(_ part: TensorInfo, _ rule: Rule, _ count: Int) throws(Failure) {
    var shape = part.shape
    switch rule.joining {
    case .copies: break
    case .heads(let heads) where heads < count: if !shape.isEmpty { shape[0] = shape[0].multipliedSaturated(by: heads) }
    case .rows, .heads: if !shape.isEmpty { shape[0] = shape[0].multipliedSaturated(by: count) }
    case .columns: if shape.count > 1 { shape[1] = shape[1].multipliedSaturated(by: count) }
    }
    guard shape != rule.shape else { return }
    let parts = count > 1 ? " in each of \(count) parts, together \(shape)" : ""
    throw Failure(
      .malformed,
      "has shape \(part.shape)\(parts); by \(MetaParameters.fileName) it is \(rule.shape)"
        + (count > 1 ? ": are all files there, and is the \(MetaParameters.fileName) theirs?" : ""),
      tensor: part.name.string)
  }
}
