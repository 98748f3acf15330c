import Bytes
import Tensors

/// The tensors of a checkpoint of DeepSpeed, put together from its files.
struct ZeROAssembly {
  private(set) var tensors: [AssembledTensor] = []
  private(set) var warnings: [Warning] = []
  /// Of all files that were opened, by position.
  private(set) var sizes: [Int: Int] = [:]
  /// Positions in `tensors` of those that are the very same, by that of the first.
  private var ties: [Int: [Int]] = [:]
  private var positions: [TensorName: Int] = [:]
  private let pool: FilePool

  private static let tensorLimit = 1_000_000

  init(_ pool: FilePool) { self.pool = pool }

  /// Positions in `tensors` of those that are the very same, two or more at a time.
  var tied: [[Int]] { ties.sorted { $0.key < $1.key }.map(\.value) }

  mutating func file(_ position: Int) throws(Failure) -> ZeROFile { try ZeROFile(position, open(position)) }

  @discardableResult
  mutating func open(_ position: Int) throws(Failure) -> InputFile {
    let file = try pool.file(position)
    sizes[position] = file.size
    return file
  }

  mutating func warn(_ warning: Warning) { warnings.append(warning) }

  func contains(_ name: String) -> Bool { positions[TensorName(name)] != nil }

  /// - Parameter file: what says so.
  static func info(_ name: String, _ type: ElementType, _ shape: [Int], _ file: String) throws(Failure) -> TensorInfo {
    do throws(Failure) {
      return try TensorInfo(name: TensorName(name), type: type, shape: shape)
    } catch { throw error.located(file: file) }
  }

  /// - Parameter parts: ranges of elements in the order of rows.
  mutating func add(_ info: TensorInfo, _ parts: [AssembledTensor.Part]) throws(Failure) {
    guard tensors.count < Self.tensorLimit else {
      throw Failure(.malformed, "has more than the \(Self.tensorLimit) tensors allowed")
    }
    guard positions.updateValue(tensors.count, forKey: info.name) == nil else {
      throw Failure(.malformed, "the tensor is there twice", tensor: info.name.string)
    }
    tensors.append(try AssembledTensor(info, grid: [info.elementCount], parts: parts))
  }

  /// A tensor that a file has whole.
  mutating func add(_ view: PyTorchTensor, file: Int) throws(Failure) {
    let count = view.info.elementCount
    try add(view.info, [.init(file: file, view: view, offsets: [0], sizes: [count])])
  }

  /// What there is in the module beside the parameters that are there already: buffers, and in stages 0 and 1 what is
  /// not trained.
  ///
  /// - Parameter isPartitioned: the module has parameters without their data.
  mutating func addModule(_ states: ZeROModelStates, isPartitioned: Bool) throws(Failure) {
    let file = states.file
    let aliases = Set(states.shared.map { TensorName($0.alias) })
    var ignored: [String] = []
    // Whatever is said of second names: the very same view in the module is the very same parameter.
    var views: [PyTorchTensor.View: Int] = [:]
    for (name, value) in states.module where !isPartitioned {
      guard let position = positions[TensorName(name)], let view = try? file.tensor(value, name) else { continue }
      if view.info.elementCount > 0 { views[view.view] = position }
    }
    for (name, value) in states.module where !contains(name) && !aliases.contains(TensorName(name)) {
      guard file.archive.isTensor(value) else {
        ignored.append(name)
        continue
      }
      let view = try file.tensor(value, name)
      if isPartitioned, view.shape == [0], !states.buffers.contains(view.info.name) {
        throw Failure(
          .malformed, "is divided among the ranks, and nothing says what shape it has", file: file.name, tensor: name)
      }
      if let position = views[view.view] {
        try addAlias(name, of: position, file.name)
        continue
      }
      if view.info.elementCount > 0 { views[view.view] = tensors.count }
      try add(view, file: file.position)
    }
    if !ignored.isEmpty {
      warn("\(list: [file.name]): ignored \(names: ignored), which are no tensors of the model")
    }
    try addAliases(states)
  }

  /// A second name of a tensor.
  private mutating func addAlias(_ name: String, of position: Int, _ file: String) throws(Failure) {
    let whole = tensors[position]
    ties[position, default: [position]].append(tensors.count)
    try add(Self.info(name, whole.info.type, whole.info.shape, file), whole.parts)
  }

  /// Second names of parameters.
  private mutating func addAliases(_ states: ZeROModelStates) throws(Failure) {
    var lost: [String] = []
    for (alias, original) in states.shared where !contains(alias) {
      guard let position = positions[TensorName(original)] else {
        lost.append(alias)
        continue
      }
      try addAlias(alias, of: position, states.file.name)
    }
    if !lost.isEmpty {
      warn("\(list: [states.file.name]): left out \(names: lost), which are parameters that were not saved")
    }
  }
}
