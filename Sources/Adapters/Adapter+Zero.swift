package import Bytes
import Quantization
import Tensors

extension Adapter {
  /// A warning that all deltas of the adapter are zero; nil where one is not, or where it has none.
  ///
  /// B is zero when training begins, so an adapter that was saved too early, or whose training did nothing, has it so.
  package func zeroWarning() throws(Failure) -> String? {
    if modules.isEmpty { return nil }
    for module in modules {
      for tensor in [module.bias].compactMap(\.self) where try !isZero(tensor) { return nil }
      guard let a = module.a, let b = module.b else { return nil }
      if try !isZero(b), try !isZero(a) { return nil }
    }
    let others = replacements.count + tokenRows.count
    let lengths = modules.count { $0.magnitude != nil }
    var text = "\(path): all its deltas are zero, as before training"
    if lengths == 0, others == 0 { return text + ": it changes nothing" }
    var rest: [String] = []
    if lengths > 0 { rest.append("\(counted(lengths, "length")) of outputs (DoRA)") }
    if others > 0 { rest.append("\(counted(others, "tensor")) that it has whole or in rows") }
    text += ": only \(rest.joined(separator: " and ")) can change the model"
    return text
  }

  /// Stops at the first value that is not.
  private func isZero(_ index: Int) throws(Failure) -> Bool {
    let info = tensors[index]
    guard let type = FloatType(elementType: info.type) else { return false }
    var position = 0
    // A trained factor shows itself in its first values.
    var step = 1 << 12
    while position < info.byteCount {
      try Interruption.check()
      let count = min(step, info.byteCount - position)
      let values = try ScratchBuffer(source, index, at: position, count: count)
      // The sign may be set.
      let top = type.byteCount - 1
      for at in 0..<count {
        let byte = values.bytes.load(at: at, as: UInt8.self)
        if byte & (at % type.byteCount == top ? 0x7F : 0xFF) != 0 { return false }
      }
      position += count
      step = 1 << 20
    }
    return true
  }
}
