/// What autograd saves for the backward pass, in bytes.
///
/// Every term is a tensor that `torch.autograd.graph.saved_tensors_hooks` sees in one step of transformers 5.23 with
/// `attn_implementation="sdpa"`, torch 2.13 on the CPU, without autocast, padding or dropout; parameters and further
/// views of a tensor are not counted. T = batch × sequence tokens; H, I, V are the hidden, intermediate and
/// vocabulary sizes; Q and K the widths of all query and all key heads; e the bytes of an element of the model.
///
///     norm          4TH + 4T                x in float32, 1/rms     (weights trained: + eTH; Gemma: + 4TH)
///                                           Gemma: + 4H, 1 + weight
///     head norms    4T(Q + K) + 4T × heads  Qwen3, of queries and keys (weights trained: + eT(Q + K))
///     attention     e(TQ + 2TK + TQ)        q, k, v and the result
///                   4T × query heads        log-sum-exp; no matrix of scores
///     MLP           3eTI                    gate, act(gate), up
///     LoRA          4T × inputs + 4T × rank each layer's own float32 copy of its input, and A's output, which PEFT
///                                           makes because adapters are float32 and the model is not;
///                                           a 16-bit adapter shares inputs: eT each of H, H and I, and eT × rank
///     full          eT(H + H + I)           inputs of the projections (the result of attention is already there)
///     rotary        2e × sequence × head    cos and sin, once for all layers
///     window        e × batch × sequence²   the mask, where the sequence is no shorter than the window; k and v then
///                                           are repeated for all query heads
///     head          norm, 4TV, 8T, 4        log-softmax of float32 logits, labels, their count (full: eTH, and
///                                           8T token numbers)
///
/// With checkpointing (`torch.utils.checkpoint`, not reentrant) each layer keeps its input, eTH. The peak is then
/// either the end of the forward pass, with the head's tensors, or the backward pass of a layer, whose tensors have
/// been computed once more.
struct Activations: Sendable {
  /// What is trained.
  enum Trained: Sendable {
    case everything
    /// - Parameter width: bytes of an element of the adapter.
    case adapter(rank: Int, width: Int)
  }

  private let shape: ModelShape
  private let trained: Trained
  private let e: Checked
  private let hidden: Checked
  private let targets: Set<Substring>

  init(_ model: FitModel, _ trained: Trained) {
    shape = model.shape
    self.trained = trained
    e = model.width
    hidden = Checked(model.shape.hidden)
    targets = Set(model.targets.compactMap(\.moduleName))
  }

  func bytes(batch: Int, sequence: Int, checkpointing: Bool) -> Checked {
    let tokens = Checked(batch) * Checked(sequence)
    let layers = Checked(shape.layers)
    let layer = layer(tokens, mask: mask(batch: batch, sequence: sequence))
    // cos and sin of the rotary positions.
    let shared = 2 * e * Checked(sequence) * Checked(shape.headSize)
    guard checkpointing else { return layers * layer + shared + head(tokens) }
    return layers * e * tokens * hidden + .max(head(tokens), layer + shared)
  }

  /// Logits, once as the output embedding makes them and once in float32: they live beside what autograd saves
  /// while the loss is computed.
  func lossBuffers(batch: Int, sequence: Int) -> Checked {
    (e + 4) * Checked(batch) * Checked(sequence) * Checked(shape.vocabulary)
  }

  private var trainsEverything: Bool { if case .everything = trained { true } else { false } }

  /// Nil where attention looks back at everything.
  private func mask(batch: Int, sequence: Int) -> Checked? {
    guard let window = shape.window, sequence >= window else { return nil }
    return e * Checked(batch) * Checked(sequence) * Checked(sequence)
  }

  private func norm(_ tokens: Checked) -> Checked {
    var bytes = 4 * tokens * hidden + 4 * tokens
    if shape.family.hasShiftedNorms { bytes += 4 * hidden }
    if trainsEverything { bytes += (shape.family.hasShiftedNorms ? 4 : e) * tokens * hidden }
    return bytes
  }

  private func headNorms(_ tokens: Checked) -> Checked {
    guard shape.family.hasHeadNorms else { return 0 }
    let width = tokens * (shape.queryWidth + shape.keyWidth)
    let scales = 4 * tokens * (Checked(shape.heads) + Checked(shape.keyValueHeads))
    return 4 * width + scales + (trainsEverything ? e * width : 0)
  }

  private func layer(_ tokens: Checked, mask: Checked?) -> Checked {
    let query = shape.queryWidth
    let keys = mask == nil ? shape.keyWidth : query
    let attention = e * tokens * (2 * query + 2 * keys) + 4 * tokens * Checked(shape.heads) + (mask ?? 0)
    let mlp = 3 * e * tokens * Checked(shape.intermediate)
    return 2 * norm(tokens) + headNorms(tokens) + attention + mlp + inputs(tokens)
  }

  /// What the weights' gradients need.
  private func inputs(_ tokens: Checked) -> Checked {
    let intermediate = Checked(shape.intermediate)
    let ofAttention: [Substring] = ["q_proj", "k_proj", "v_proj"]
    let ofMLP: [Substring] = ["gate_proj", "up_proj"]
    guard case .adapter(let rank, let width) = trained else { return e * tokens * (2 * hidden + intermediate) }
    let inner = Checked(width) * tokens * Checked(rank) * Checked(targets.count)
    if Checked(width) != e {
      let sizes = targets.sum { $0 == "o_proj" ? shape.queryWidth : $0 == "down_proj" ? intermediate : hidden }
      return inner + Checked(width) * tokens * sizes
    }
    var size: Checked = targets.isDisjoint(with: ofAttention) ? 0 : hidden
    if !targets.isDisjoint(with: ofMLP) { size += hidden }
    if targets.contains("down_proj") { size += intermediate }
    return inner + e * tokens * size
  }

  private func head(_ tokens: Checked) -> Checked {
    let loss = 4 * tokens * Checked(shape.vocabulary) + 8 * tokens + 4
    return norm(tokens) + loss + (trainsEverything ? e * tokens * hidden + 8 * tokens : 0)
  }
}
