import Bytes
import Checkpoints
import Commands
import GGUF
import Tensors
import Writing

/// Holds names, dtypes and shapes to those that the options in the manifest give.
struct LayoutCheck {
  let plan: WritePlan
  let checkpoint: any StoredCheckpoint
  /// The name of what the plan was made from, for messages.
  let against: String

  func run(_ result: inout Verify.Result) throws(Failure) {
    let stored =
      checkpoint.files.gguf?.checkpoint.tensors.map(StoredTensor.init) ?? checkpoint.tensors.map(StoredTensor.init)
    var left = Dictionary(stored.map { ($0.name, $0) }) { first, _ in first }
    // What has been said of a tensor already is not said again.
    let said = Set(result.problems.compactMap(\.tensor))
    func add(_ name: TensorName, _ problem: String) {
      if !said.contains(name.string) { result.add(tensor: name, problem) }
    }
    for step in plan.steps {
      for wanted in try plan.outputs(of: step) {
        guard let found = left.removeValue(forKey: wanted.name) else {
          add(wanted.name, "is missing: by the manifest's options \(against) gives it")
          continue
        }
        if found.type == wanted.type, found.shape == wanted.shape { continue }
        add(
          wanted.name,
          "is \(text(found)), but the manifest's options make \(text(wanted)) of the weights in \(against)")
      }
    }
    for name in left.keys.sorted() { add(name, "is nothing that the manifest's options make of \(against)") }
  }

  private func text(_ tensor: StoredTensor) -> String {
    let type =
      switch tensor.type {
      case .element(let type): type.name
      case .ggml(let type): type.name.uppercased()
      }
    return "\(type) of shape \(tensor.shape)"
  }
}
