import Tensors

/// The tensors that autograd saves for one layer, or outside of the layers.
struct LayerTensors {
  /// The bytes that no other layer saves too.
  private(set) var own = SavedBytes()
  /// The bytes that other layers save too, by the tensor's name.
  private(set) var shared: [String: SavedBytes] = [:]

  private let trained: Activations.Trained
  private let width: Checked
  private var inputs: Set<String> = []

  init(_ trained: Activations.Trained, _ width: Checked, _ tensors: [SavedTensor]) {
    self.trained = trained
    self.width = width
    let trainsWeights = if case .everything = trained { true } else { false }
    for tensor in tensors where trainsWeights || !tensor.isForWeights {
      if let name = tensor.shared {
        shared[name, default: SavedBytes()].add(tensor, width: width)
      } else {
        own.add(tensor, width: width)
      }
    }
  }

  /// The bytes of `own` and `shared` together.
  var whole: SavedBytes { shared.values.reduce(into: own, +=) }

  /// Adds the tensors that the gradient of a parameter, or of its adapter, needs.
  mutating func add(_ parameter: FitParameter) {
    guard case .adapter(let rank, let width) = trained else {
      addInput(parameter)
      return
    }
    guard parameter.isTarget, let adapter = parameter.role.adapter else { return }
    let isWide = Checked(width) != self.width
    let factors = Checked(rank) * (Checked(adapter.inputs) + Checked(adapter.outputs))
    let elements = Checked(parameter.info.elementCount)
    switch adapter.form {
    case .linear:
      own.add(.tokens, Checked(width) * Checked(rank))
      if isWide {
        own.add(.tokens, Checked(width) * Checked(adapter.inputs))
      } else {
        addInput(parameter)
      }
    case .matrix(let savesSum):
      addInput(parameter)
      if savesSum { own.add(.once, self.width * elements) }
      if !isWide { own.add(.once, 4 * factors) }
    case .stack:
      addInput(parameter)
      own.add(.once, self.width * elements)
      if isWide { own.add(.once, self.width * factors) }
    }
  }

  private mutating func addInput(_ parameter: FitParameter) {
    guard case .shared(let name, let tensor) = parameter.role.input, inputs.insert(name).inserted else { return }
    own.add(tensor, width: width)
  }
}
