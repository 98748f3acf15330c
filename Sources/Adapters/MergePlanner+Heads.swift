import Bytes
import Tensors

/// Heads of classifiers, which adapters bring along and their causal bases do not have.
extension MergePlanner {
  /// - Parameter isHead: PEFT saved it by itself, as the task's head.
  mutating func noteHead(_ name: String, _ replacement: Adapter.Replacement, of adapter: Adapter, isHead: Bool) {
    let task = adapter.configuration.taskType ?? ""
    guard isHead, let architecture = base.headClasses[task] else {
      warnings.append(
        "\(names: [name]) is not in the base; the adapter's is written: 'architectures' in config.json must name a class "
          + "that has it")
      return
    }
    if classifier != nil { return }
    // The outputs of a head for questions are where an answer begins and ends.
    let rows = adapter.tensors[replacement.tensor].shape.first
    classifier = .init(architecture: architecture, labels: task == "QUESTION_ANS" ? nil : rows, adapter: adapter)
    let labels = classifier?.labels.map { " with \(counted($0, "label"))" } ?? ""
    warnings.append("'\(name)' is the adapter's: the model is \(architecture)\(labels) from now on")
  }

  /// The new class has no use for the output embedding of the old one.
  mutating func dropUnusedHead() {
    guard classifier != nil, !base.tiesEmbeddings else { return }
    let name = base.outputEmbedding + ".weight"
    guard let head = slots.firstIndex(where: { $0.parameter == name }), !slots[head].isChanged else { return }
    warnings.append("'\(slots[head].name.string)' is left out: \(classifier?.architecture ?? "") has none")
    slots.remove(at: head)
  }
}
