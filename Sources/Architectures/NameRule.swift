import Tensors

/// The best guess for a class that has no rule: what tensor names usually mean.
enum NameRule {
  private static let embeddings = [
    "embed", "wte", "wpe", "position", "relative_attention_bias", "shared", "token_type",
  ]
  private static let heads = [
    "lm_head", "embed_out", "score", "classifier", "qa_outputs", "proj_out", "output_projection", "cls", "head",
    "logits", "output", "output_layer", "ff_out",
  ]
  private static let routers = ["router", "gate", "wg", "switch"]

  /// - Parameter module: the path in front of `.weight`.
  static func disposition(of module: [UInt8], _ tensor: TensorInfo) -> Disposition {
    let components = module.components
    guard tensor.isMatrix, let last = components.last else { return .keep(.notLinear) }
    if contains(last, "norm") || contains(last, "conv") || embeddings.contains(where: { contains(last, $0) }) {
      return .keep(.notLinear)
    }
    let isInLayer = components.contains { $0.isNumber }
    if !isInLayer, heads.contains(where: { last.elementsEqual($0.utf8) }) { return .keep(.outputEmbedding) }
    if routers.contains(where: { last.elementsEqual($0.utf8) })
      || components.contains(where: { contains($0, "router") })
    {
      return .keep(.router)
    }
    if components.contains(where: { $0.elementsEqual("experts".utf8) }) { return .keep(.expert) }
    return .quantize
  }

  private static func contains(_ part: ArraySlice<UInt8>, _ word: String) -> Bool {
    Array(part).firstOccurrence(of: Array(word.utf8)) != nil
  }
}

extension TensorInfo {
  /// Two dimensions of numbers that can be quantized, none of them zero.
  package var isMatrix: Bool { type.isFloat && shape.count == 2 && elementCount > 0 }
}
