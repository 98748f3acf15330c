import Tensors

extension Family {
  /// The first weight that a model must have and this one has not, by the names that its weights have in GGUF.
  ///
  /// Every layer has required weights, so a layer that is not there ends this at once, however many are stated.
  func firstMissing<T>(
    in found: [TensorName: T], layers: Int, needsHead: Bool
  ) -> (rule: TensorRule, layer: Int)? {
    func isThere(_ rule: TensorRule, _ layer: Int) -> Bool {
      found[TensorName(NumberedName.fill(rule.gguf, layer: layer))] != nil
    }
    for rule in tensors where !rule.isPerLayer && !isThere(rule, 0) {
      switch rule.presence {
      case .required: return (rule, 0)
      case .unlessTied: if needsHead { return (rule, 0) }
      case .optional, .alternative: break
      }
    }
    let required = tensors.filter { $0.presence == .required && $0.isPerLayer }
    let optional = tensors.filter { $0.presence == .optional && $0.isPerLayer }
    let isInFirst = optional.map { isThere($0, 0) }
    for layer in 0..<layers {
      if let rule = required.first(where: { !isThere($0, layer) }) { return (rule, layer) }
      for (rule, isExpected) in zip(optional, isInFirst) where isThere(rule, layer) != isExpected {
        return (rule, isExpected ? layer : 0)
      }
    }
    return nil
  }
}
