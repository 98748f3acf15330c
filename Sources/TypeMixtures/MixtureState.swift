import Bytes
import GGUF
import Tensors

/// The rules of a scheme, applied to one tensor after the other: some depend on how many of a kind came before.
struct MixtureState {
  let scheme: GGUFScheme
  let model: ModelTraits
  let hasImportance: Bool
  /// The type given by the user for the tensor that makes the output.
  let outputType: GGMLType?
  /// There is no output tensor: the embedding makes the output as well.
  let isTied: Bool
  /// Tensors that hold values, whether they are quantized or not.
  let valueCount: Int
  var values = 0
  var downs = 0
  private var gates = 0
  private var ups = 0

  init(_ choice: TypeChoice, _ model: ModelTraits, roles: [TensorRole]) {
    scheme = choice.scheme
    hasImportance = choice.hasImportance
    outputType = choice.outputType
    self.model = model
    isTied = !roles.contains(.output)
    valueCount = roles.count { $0.holdsValues }
  }

  private static let neverLowInGLM = ["attn_q_a", "attn_q_b", "nextn.eh_proj"]

  var isFalcon: Bool { model.architecture == "falcon" }
  var hasEightExperts: Bool { model.experts == 8 }
  var sharesKeys: Bool { model.queriesPerKey >= 4 }

  /// The first and last eighth of the layers, and every third between.
  static func isFavored(_ index: Int, of count: Int) -> Bool {
    index < count / 8 || index >= 7 * count / 8 || (index - count / 8) % 3 == 2
  }

  /// - Throws: `malformed` when the layer counts and cannot be told.
  mutating func type(of tensor: GGUFTensor, role: TensorRole) throws(Failure) -> GGMLType {
    if model.architecture == "glm5-next", Self.neverLowInGLM.contains(where: { tensor.name.string.hasBytes($0) }) {
      return .q8_0
    }
    if role == .output || isTied && role == .embedding { return outputType ?? defaultOutput(tensor) }
    if scheme == .mxfp4 { return isExpert(tensor, role) ? .mxfp4 : .q8_0 }
    if role == .embedding { return embeddingType }
    if Self.lowBit.contains(scheme) { return lowBitType(role) }
    switch role {
    case .value, .queryKeyValue, .keyValue:
      defer { values += 1 }
      return valueType
    case .key: return keyType
    case .query: return queryType
    case .down:
      defer { downs += 1 }
      return downType(layer: try layer(of: tensor, inOrder: downs), of: try layers)
    case .attentionOutput: return attentionOutputType
    case .gate:
      defer { gates += 1 }
      return upType(layer: try layer(of: tensor, inOrder: gates), of: try layers)
    case .up:
      defer { ups += 1 }
      return upType(layer: try layer(of: tensor, inOrder: ups), of: try layers)
    case .output, .embedding, .other: return scheme.defaultType
    }
  }

  private var layers: Int {
    get throws(Failure) {
      guard let layers = model.layers else {
        // Of what is made for images there is no such count.
        if model.architecture == "clip" { return 0 }
        throw Failure(.malformed, "metadata '\(model.architecture).block_count' is missing")
      }
      return layers
    }
  }

  /// Experts of one layer may be tensors of their own, in any order: then the name tells.
  private func layer(of tensor: GGUFTensor, inOrder index: Int) throws(Failure) -> Int {
    guard model.experts > 1 else { return index }
    guard let layer = tensor.name.string.blockNumber else {
      throw Failure(.malformed, "the name does not tell its layer (blk.N.)", tensor: tensor.name.string)
    }
    let layers = try layers
    guard (0..<layers).contains(layer) else {
      throw Failure(.malformed, "is of layer \(layer), there are \(layers)", tensor: tensor.name.string)
    }
    return layer
  }

  private func isExpert(_ tensor: GGUFTensor, _ role: TensorRole) -> Bool {
    // In bailingmoe3 projections of attention have three dimensions too.
    tensor.experts > 1 && (model.architecture != "bailingmoe3" || [.up, .gate, .down].contains(role))
  }
}
