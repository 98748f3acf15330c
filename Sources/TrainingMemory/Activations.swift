/// Bytes that autograd saves for the backward pass: the tensors of `TrainedDecoder`, and those of the adapters.
///
/// Every term is a tensor that `torch.autograd.graph.saved_tensors_hooks` sees in one step of transformers 5.23 with
/// the attention that it chooses, torch 2.13 on the CPU, without autocast or padding; parameters and further views of a
/// tensor are not counted. T = batch × sequence tokens; e: the bytes of an element of the model.
///
///     full          what each weight is multiplied with, once for all that share it
///     LoRA          4T × inputs + 4T × rank   each layer's own float32 copy of its input, and A's output, which PEFT
///                                             makes because adapters are float32 and the model is not;
///                                             a 16-bit adapter shares inputs: eT each, and eT × rank
///     LoRA on a     e × elements              of a stack of experts, or a router: the sum of the weight and the
///     parameter                               product of the factors, for each of them; a stack's factors in e where
///                                             they are float32, a router's in float32 where they are not
///
/// With checkpointing (`torch.utils.checkpoint`, not reentrant) each layer keeps its input, eTH. The peak is then
/// either the end of the forward pass, with the head's tensors, or the backward pass of the largest layer, whose
/// tensors have been computed once more.
struct Activations: Sendable {
  /// The parameters that are trained.
  enum Trained: Sendable {
    case everything
    /// - Parameter width: bytes of an element of the adapter.
    case adapter(rank: Int, width: Int)
  }

  /// The bytes saved without checkpointing.
  private let all: SavedBytes
  private let head: SavedBytes
  /// Each kind of layer once, with what it shares with others.
  private let layers: [SavedBytes]
  /// Bytes per token of the inputs of all layers: e × hidden size × layers.
  private let inputs: Checked
  /// Bytes per token of the logits: (e + 4) × vocabulary.
  private let logits: Checked

  init(_ model: FitModel, _ trained: Trained) {
    let decoder = model.decoder
    // Of the first layer of each kind, and how many there are.
    var layers: [Int: (tensors: LayerTensors, count: Int)] = [:]
    for like in decoder.likeLayers {
      layers[like, default: (LayerTensors(trained, model.width, decoder.layers[like]), 0)].count += 1
    }
    var head = LayerTensors(trained, model.width, decoder.head)
    for parameter in model.parameters {
      if let layer = parameter.role.layer {
        if decoder.likeLayers[layer] == layer { layers[layer]?.tensors.add(parameter) }
      } else {
        head.add(parameter)
      }
    }
    var all = head.own
    var shared: [String: SavedBytes] = [:]
    for layer in layers.values {
      all += layer.tensors.own * layer.count
      shared.merge(layer.tensors.shared) { first, _ in first }
    }
    for bytes in shared.values { all += bytes }
    self.all = all
    self.head = head.own
    self.layers = layers.values.map(\.tensors.whole)
    inputs = Checked(decoder.layers.count) * model.width * Checked(decoder.hidden)
    logits = (model.width + 4) * Checked(decoder.vocabulary)
  }

  func bytes(batch: Int, sequence: Int, checkpointing: Bool) -> Checked {
    guard checkpointing else { return all.bytes(batch: batch, sequence: sequence) }
    let tokens = Checked(batch) * Checked(sequence)
    let largest = layers.map { $0.bytes(batch: batch, sequence: sequence) }.reduce(0, Checked.max)
    return inputs * tokens + .max(head.bytes(batch: batch, sequence: sequence), largest)
  }

  /// Logits, once as the output embedding makes them and once in float32: they live beside what autograd saves
  /// while the loss is computed.
  func lossBuffers(batch: Int, sequence: Int) -> Checked { logits * Checked(batch) * Checked(sequence) }
}
