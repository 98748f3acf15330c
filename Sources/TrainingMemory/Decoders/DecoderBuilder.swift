import Adapters
import Bytes
import JSON
import ModelFamilies

/// Writes a decoder down, module after module, as its class builds it.
///
/// A module is its parameters and what autograd saves where it is computed. T = batch × sequence tokens; e: the bytes
/// of an element of the model.
struct DecoderBuilder {
  let family: TrainingFamily
  let config: ModelParameters
  let sizes: ModelSizes
  private(set) var decoder: TrainedDecoder
  private var layer: Int?
  private var path = ""

  init(family: TrainingFamily, config: ModelParameters, sizes: ModelSizes, decoder: TrainedDecoder) {
    self.family = family
    self.config = config
    self.sizes = sizes
    self.decoder = decoder
  }

  var hidden: Int { decoder.hidden }

  /// The embeddings, every layer, the last norm and the output embedding.
  mutating func build() throws(Failure) {
    plain(family.names.embedding + ".weight", [decoder.vocabulary, hidden])
    // Token numbers.
    save(SavedTensor(.int64, .tokens, 1).forWeights)
    // The parameters of the first layer of each kind.
    var kinds: [(layer: Int, parameters: Range<Int>)] = []
    for number in 0..<sizes.layers {
      layer = number
      path = family.names.layers + ".\(number)."
      decoder.layers.append([])
      let first = decoder.parameters.count
      try family.layer(&self, number)
      let parameters = first..<decoder.parameters.count
      if let like = kinds.first(where: { isAlike($0.layer, $0.parameters, number, parameters) }) {
        decoder.likeLayers.append(like.layer)
      } else {
        kinds.append((number, parameters))
        decoder.likeLayers.append(number)
      }
    }
    layer = nil
    path = ""
    norm(family.lastNorm, family.names.norm)
    // Log-softmax of float32 logits, labels, their count.
    save(.float32, .tokens, decoder.vocabulary)
    save(.int64, .tokens, 1)
    save(.float32, .once, 1)
    if decoder.tiesEmbeddings {
      save(SavedTensor(.model, .tokens, hidden).forWeights)
    } else {
      parameter("lm_head.weight", [decoder.vocabulary, hidden], .shared("head", SavedTensor(.model, .tokens, hidden)))
    }
    try family.outside(&self)
  }

  private func isAlike(_ a: Int, _ first: Range<Int>, _ b: Int, _ second: Range<Int>) -> Bool {
    decoder.layers[a] == decoder.layers[b] && first.count == second.count
      && zip(decoder.parameters[first], decoder.parameters[second]).allSatisfy {
        $0.shape == $1.shape && $0.adapter?.names == $1.adapter?.names
      }
  }

  // MARK: - Configuration

  func flag(_ key: String, _ fallback: Bool = false) throws(Failure) -> Bool { try config.bool(key) ?? fallback }

  /// Layers with a window, of those that `layer_types` or, where it is not stated, the class's rule gives one.
  func window(
    _ key: String = "sliding_window", type: String = "sliding_attention", otherwise rule: Bool = true
  ) throws(Failure) -> Int? {
    guard let window = try config.optionalSize(key) else { return nil }
    guard let types = try config.array("layer_types") else { return rule ? window : nil }
    guard let layer, layer < types.count, let found = types[layer].string else {
      throw config.failure("layer_types", "does not name the type of layer \(layer ?? 0)")
    }
    return found == type ? window : nil
  }

  /// `partial_rotary_factor` of the head's values, with the rope parameters or beside them.
  func rotaryLength(_ head: Int, otherwise fallback: Double = 1) throws(Failure) -> Int {
    let inner = try config.object("rope_parameters")?["partial_rotary_factor"]?.double
    let outer = try config.number("partial_rotary_factor")
    let part = inner ?? outer ?? fallback
    guard part > 0, part <= 1 else {
      throw config.failure("partial_rotary_factor", "found \(part), allowed is above 0 up to 1")
    }
    return Int(Double(head) * part)
  }

  /// A product of lengths that the configuration states.
  func product(_ factors: Int..., what: String) throws(Failure) -> Int {
    var product = 1
    for factor in factors {
      let (next, overflows) = product.multipliedReportingOverflow(by: factor)
      guard !overflows, next <= 1 << 40 else { throw config.failure(what, "its product with other sizes is too large") }
      product = next
    }
    return product
  }

  // MARK: - Parameters and what is saved

  mutating func save(_ tensor: SavedTensor) {
    if decoder.layers.isEmpty || layer == nil {
      decoder.head.append(tensor)
    } else {
      decoder.layers[decoder.layers.count - 1].append(tensor)
    }
  }

  mutating func save(_ element: SavedTensor.Element, _ extent: SavedTensor.Extent, _ size: Int) {
    save(SavedTensor(element, extent, size))
  }

  mutating func parameter(
    _ name: String, _ shape: [Int], _ input: TrainedParameter.Input?, _ adapter: TrainedParameter.Adapter? = nil
  ) {
    decoder.parameters.append(
      TrainedParameter(name: path + name, shape: shape, layer: layer, adapter: adapter, input: input))
  }

  /// One whose gradient needs nothing more.
  mutating func plain(_ name: String, _ shape: [Int]) { parameter(name, shape, nil) }

  mutating func warn(_ warning: Warning) {
    if !decoder.warnings.contains(warning) { decoder.warnings.append(warning) }
  }

  /// The mask of the values that are left.
  mutating func dropout(_ key: String, otherwise rate: Double = 0) throws(Failure) {
    if try config.number(key) ?? rate > 0 { save(.model, .tokens, hidden) }
  }

  // MARK: - Linear layers

  /// - Parameters:
  ///   - input: a name for what it is computed from, the same for all layers that share it; nil where that is saved
  ///     anyway.
  ///   - isTransposed: GPT-2's Conv1D has its outputs last.
  mutating func linear(
    _ name: String, _ outputs: Int, _ inputs: Int, bias: Bool = false, input: String?, isTransposed: Bool = false,
    isAdapted: Bool = true
  ) {
    let last = name.split(separator: ".").last.map(String.init) ?? name
    let isTarget = isAdapted && !(family.experts?.all.contains(last) ?? false)
    parameter(
      name + ".weight", isTransposed ? [inputs, outputs] : [outputs, inputs],
      input.map { .shared($0, SavedTensor(.model, .tokens, inputs)) } ?? .saved,
      isTarget
        ? TrainedParameter.Adapter(form: .linear, names: [last], inputs: inputs, outputs: outputs) : nil)
    if bias { plain(name + ".bias", [outputs]) }
  }

  // MARK: - Norms

  enum Norm: Sendable {
    /// Root mean square: x in float32, 1/rms; for the weights x/rms in e.
    case rms
    /// The same, its weights multiplied in float32.
    case float
    /// Gemma's: 1 + weight in float32.
    case shifted
    /// torch's LayerNorm: x, the mean and 1/deviation, all in e.
    case layer
    /// LayerNorm written out in float32, without a bias.
    case cohere
  }

  /// - Parameters:
  ///   - count: heads, each with a norm over `width` values; they share one weight, Cohere's have one each.
  ///   - isInputSaved: another norm of the layer saves the same x.
  mutating func norm(_ kind: Norm, _ name: String, width: Int? = nil, heads: Int? = nil, isInputSaved: Bool = false) {
    let width = width ?? hidden
    let count = heads ?? 1
    let values = SavedTensor(.float32, .tokens, width, count)
    var shape = [width]
    switch kind {
    case .rms, .float, .shifted:
      save(values)
      save(.float32, .tokens, count)
      if case .shifted = kind { save(.float32, .once, width) }
      if case .rms = kind {
        save(SavedTensor(.model, .tokens, width, count).forWeights)
      } else {
        save(values.forWeights)
      }
    case .layer:
      if !isInputSaved { save(.model, .tokens, width) }
      save(.model, .tokens, 2)
      plain(name + ".bias", shape)
    case .cohere:
      save(values)
      save(values)
      save(.float32, .tokens, count)
      save(SavedTensor(.float32, .once, width, count))
      save(values.forWeights)
      if let heads { shape = [heads, width] }
    }
    plain(name + ".weight", shape)
  }
}
