import Bytes
import Safetensors
import Tensors

/// The tensors of the adapter that is to be written, in file order.
struct AdapterLayout: TensorSource {
  enum Content: Sendable {
    /// A and B of a module, by its place among the modules that changed.
    case a(Int)
    case b(Int)
    /// A tensor of the tuned model, by position among the pairs.
    case whole(Int)
  }

  let tensors: [TensorInfo]
  let contents: [Content]

  /// What every name in a PEFT adapter begins with.
  static let prefix = "base_model.model."

  /// - Parameter modules: those that changed.
  init(
    modules: [ExtractPlan.Module], saved: [SavedTensors.Saved], pair: CheckpointPair, rank: Int, type: ElementType
  ) throws(Failure) {
    var entries: [(info: TensorInfo, content: Content)] = []
    for (number, module) in modules.enumerated() {
      let a = TensorName("\(Self.prefix)\(module.path).lora_A.weight")
      let b = TensorName("\(Self.prefix)\(module.path).lora_B.weight")
      entries.append((try TensorInfo(name: a, type: type, shape: [rank, module.inputs]), .a(number)))
      entries.append((try TensorInfo(name: b, type: type, shape: [module.outputs, rank]), .b(number)))
    }
    for tensor in saved {
      let info = pair.infos(tensor.position).b
      let name = TensorName(Self.prefix + tensor.key)
      entries.append((try TensorInfo(name: name, type: info.type, shape: info.shape), .whole(tensor.position)))
    }
    // Wide elements first, so that all are aligned.
    let sorted = [8, 4, 2, 1].flatMap { width in entries.filter { $0.info.type.alignment == width } }
    tensors = sorted.map(\.info)
    contents = sorted.map(\.content)
  }

  /// - Throws: always; the factors are made while they are written.
  func read(_ index: Int, at offset: Int, into destination: UnsafeMutableRawBufferPointer) throws(Failure) {
    throw Failure(.internal, "an adapter's plan has no data", tensor: tensors[index].name.string)
  }
}
