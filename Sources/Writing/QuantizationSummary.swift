package import Architectures
package import Bytes
import GGUF
package import Tensors

/// A summary of the tensors that a run quantized, and of those that stay as they were and why.
public struct QuantizationSummary: Sendable {
  /// Types of fewer bits and how many tensors have them; the most frequent first.
  package var types: [(name: String, tensors: Int)] = []
  /// Why other tensors stay, and which do; in the order of the first of each.
  package var kept: [(reason: Reason, names: [String])] = []
  /// The fraction of the values that were quantized.
  package var fraction = 0.0
  /// The bits per parameter of the tensor data that is written.
  package var bitsPerParameter = 0.0

  /// How a given number of bits was spent; nil where none was given.
  package var budget: Budget?

  /// What of a budget of bits was spent, and on what.
  package struct Budget: Sendable {
    package var target: Double
    /// Bits of each weight that could be quantized, as they are written.
    package var bits: Double
    /// Weights that have more bits than without a budget, those that lose most for each byte first, and how many weights
    /// there are.
    package var raised: [String]
    package var count: Int
    /// The fraction of the loss that this saves.
    package var share: Double
    /// Whether errors counted by what was measured of the columns' inputs.
    package var isWeighted: Bool

    package init(target: Double, bits: Double, raised: [String], of count: Int, share: Double, isWeighted: Bool) {
      self.target = target
      self.bits = bits
      self.raised = raised
      self.count = count
      self.share = share
      self.isWeighted = isWeighted
    }

    fileprivate func text(isVerbose: Bool) -> String {
      var text = "budget: \(thousandths(bits)) of \(target) bits a weight: \(raised.count) of \(count) weights get more"
      guard !raised.isEmpty else { return text + "\n" }
      text += ", which had \(percent(share)) of the relative squared error"
      text += isWeighted ? ", weighted by their inputs: " : ": "
      let shown = isVerbose ? raised.count : min(4, raised.count)
      text += raised.prefix(shown).map { $0.printable(limit: 512) }.joined(separator: ", ")
      return text + (shown < raised.count ? " and \(raised.count - shown) more\n" : "\n")
    }
  }

  /// A reason in words for one tensor and for several.
  package struct Reason: Sendable, Equatable {
    var one: String
    var several: String

    package init(_ one: String, _ several: String? = nil) {
      self.one = one
      self.several = several ?? one + "s"
    }
  }

  /// Two lines; one more for a budget.
  ///
  /// - Parameter isVerbose: with the names of what stays.
  public func text(isVerbose: Bool) -> String {
    let quantized = types.enumerated().map { index, type in
      "\(type.tensors)" + (index == 0 ? type.tensors == 1 ? " tensor" : " tensors" : "") + " to \(type.name)"
    }.joined(separator: ", ")
    var text = "quantized: \(quantized.isEmpty ? "nothing" : quantized) (\(percent(fraction)) of the parameters), "
    text += "\(hundredths(bitsPerParameter)) bits per parameter in all\n"
    if let budget { text += budget.text(isVerbose: isVerbose) }
    guard !kept.isEmpty else { return text }
    let groups = kept.map { "\($0.names.count) \($0.names.count == 1 ? $0.reason.one : $0.reason.several)" }
    if !isVerbose { return text + "kept: \(groups.joined(separator: ", "))\n" }
    for (group, entry) in zip(groups, kept) {
      text += "kept: \(group): \(entry.names.map { $0.printable(limit: 512) }.joined(separator: ", "))\n"
    }
    return text
  }

  private mutating func keep(_ name: TensorName, _ reason: Reason) {
    if let place = kept.firstIndex(where: { $0.reason == reason }) {
      kept[place].names.append(name.string)
    } else {
      kept.append((reason, [name.string]))
    }
  }

  private mutating func setTypes(_ counts: [String: Int]) {
    types = counts.map { (name: $0.key, tensors: $0.value) }.sorted { ($1.tensors, $0.name) < ($0.tensors, $1.name) }
  }

  private mutating func setSizes(quantized: Double, all: Double, bytes: Int) {
    guard all > 0 else { return }
    fraction = quantized / all
    bitsPerParameter = 8 * Double(bytes) / all
  }
}

private func percent(_ fraction: Double) -> String { "\(hundredths(100 * fraction)) %" }

private func hundredths(_ value: Double) -> String { String((value * 100).rounded() / 100) }

private func thousandths(_ value: Double) -> String { String((value * 1000).rounded() / 1000) }

extension QuantizationSummary {
  /// The summary of a run that writes a checkpoint of transformers.
  ///
  /// - Parameter dispositions: one for each tensor of the plan's source; nil where the source decided.
  package init(_ plan: WritePlan, _ dispositions: [Disposition]?) {
    self.init(plan) { step in
      let info = plan.info(of: step)
      if case .keep(let reason)? = dispositions?[step.tensor] { return Reason(reason, info) }
      return Reason("tensor as it was", "tensors as they were")
    }
  }

  /// The summary of a run that writes a GGUF file.
  package init(gguf plan: WritePlan) throws(Failure) {
    let tensors = try plan.ggufTensors()
    self.init(plan) { step in
      let tensor = tensors[step.tensor]
      let type = tensor.type.name.uppercased()
      return tensor.shape.count < 2
        ? Reason("vector in \(type)", "vectors in \(type)")
        : Reason("matrix in \(type), as llama.cpp has it", "matrices in \(type), as llama.cpp has them")
    }
  }

  package init(_ plan: WritePlan, reason: (Step) -> Reason) {
    var counts: [String: Int] = [:]
    var (quantized, all) = (0.0, 0.0)
    for step in plan.steps {
      let info = plan.info(of: step)
      all += Double(info.elementCount)
      if let name = plan.encoder(of: step).schemeName {
        counts[name, default: 0] += 1
        quantized += Double(info.elementCount)
      } else {
        keep(info.name, reason(step))
      }
    }
    setTypes(counts)
    setSizes(quantized: quantized, all: all, bytes: plan.plannedByteCount)
  }
}

extension QuantizationSummary.Reason {
  package init(_ reason: KeepReason, _ info: TensorInfo) {
    switch reason {
    case .notLinear:
      if info.shape.count < 2 {
        self.init("norm or bias", "norms and biases")
      } else if info.name.string.contains("emb") || info.name.string.contains("wte") || info.name.string.contains("wpe")
      {
        self.init("embedding")
      } else {
        self.init("weight of no linear layer", "weights of no linear layer")
      }
    case .outputEmbedding: self.init("output embedding")
    case .tied: self.init("tied weight")
    case .lastParameter: self.init("last parameter of the model", "last parameters of the model")
    case .fp32Module: self.init("weight that its class keeps in 32 bits", "weights that their class keeps in 32 bits")
    case .expert: self.init("expert's weight", "experts' weights")
    case .router: self.init("router")
    case .converted: self.init("weight that the loader rearranges", "weights that the loader rearranges")
    case .userKept: self.init("weight by --keep", "weights by --keep")
    case .collision: self.init("weight named like a kept one", "weights named like kept ones")
    case .unknown: self.init("weight of no known module", "weights of no known module")
    }
  }
}
