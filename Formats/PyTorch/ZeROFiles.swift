import Bytes
import Tensors

/// The files of a checkpoint of DeepSpeed that there must be, by what it is.
struct ZeROFiles {
  private enum Kind {
    /// Everything is in the module's file.
    case whole
    /// Stages 1 and 2, and 3.
    case replicated, partitioned
    /// Parameters are in files of their own.
    case universal
  }

  private let kind: Kind
  /// Of the module: one, or one for each rank.
  private let models: [String]
  /// Of the ranks' optimizers, or of the parameters.
  private let others: [String]
  private let folder: ZeROFolder

  var all: [String] { models + others }

  /// - Throws: `missing` for one that is not there.
  init(_ folder: ZeROFolder) throws(Failure) {
    self.folder = folder
    if !folder.parameters.isEmpty {
      kind = .universal
      others = folder.parameters.map(ZeROFolder.path)
      let partitioned = try folder.partitioned.all(folder.partitioned.count)
      models = folder.module.map { [$0] } ?? partitioned
      return
    }
    guard let first = folder.optimizers.first else {
      guard let module = folder.module else {
        throw Failure(
          .missing, "holds no '…_optim_states.pt', in which the parameters are", file: folder.directory.path)
      }
      kind = .whole
      (models, others) = ([module], [])
      return
    }
    let states = try ZeROOptimizerStates(ZeROFile(0, folder.directory.open(first)))
    others = try folder.optimizers.all(states.worldSize)
    if states.stage == 3 {
      kind = .partitioned
      models = try folder.partitioned.all(states.worldSize)
    } else {
      guard let module = folder.module else {
        throw Failure(
          .missing, "the file is missing; it says what the parameters are", file: "mp_rank_00_model_states.pt")
      }
      kind = .replicated
      models = [module]
    }
  }

  func read(into assembly: inout ZeROAssembly) throws(Failure) {
    guard let first = models.first else { return try readAllParameters(into: &assembly) }
    let states = try ZeROModelStates(assembly.file(0), isUniversal: kind == .universal)
    if kind == .universal { return try readUniversal(states, into: &assembly) }
    guard states.partCount == 1 else { throw ZeROFolder.refused(partCount: states.partCount, first) }
    guard !states.isAutoEP else {
      throw Failure(
        .unsupported,
        "holds experts that AutoEP divides: convert it with ds_to_universal.py of DeepSpeed, whose result is read",
        file: first)
    }
    let optimizers = models.count..<models.count + others.count
    switch kind {
    case .whole, .universal:
      guard states.groups == nil else {
        throw Failure(
          .missing,
          "there is no '…_optim_states.pt' beside it, in which the parameters are in full precision: name this file "
            + "itself for those in it", file: first)
      }
      try assembly.addModule(states, isPartitioned: false)
    case .replicated: try assembly.addReplicated(states, optimizers: optimizers)
    case .partitioned: try assembly.addPartitioned(states, models: models.indices, optimizers: optimizers)
    }
  }

  // MARK: - Universal

  private func readAllParameters(into assembly: inout ZeROAssembly) throws(Failure) {
    for (number, name) in folder.parameters.enumerated() {
      try assembly.addUniversal(name, models.count + number, shape: nil)
    }
  }

  private func readUniversal(_ states: ZeROModelStates, into assembly: inout ZeROAssembly) throws(Failure) {
    guard let groups = states.groups, folder.partCount == 1, states.partCount == 1, !states.isAutoEP else {
      try readAllParameters(into: &assembly)
      assembly.warn(
        "\(list: [folder.directory.path]): left out what is in '\(states.file.name)' alone, where each rank has a part")
      return
    }
    var shapes: [TensorName: [Int]] = [:]
    for (name, shape) in groups.joined() { shapes[TensorName(name)] = shape }
    let module = Set(states.module.map { TensorName($0.name) })
    // The conversion writes what is not trained too, as float32 whatever it was: the module has it as it is.
    for (number, name) in folder.parameters.enumerated() {
      let shape = shapes[TensorName(name)]
      if shape == nil, module.contains(TensorName(name)) { continue }
      try assembly.addUniversal(name, models.count + number, shape: shape)
    }
    if let lost = groups.joined().first(where: { !assembly.contains($0.name) }) {
      throw Failure(.missing, "the file of the parameter is missing", file: ZeROFolder.path(of: lost.name))
    }
    let isPartitioned = folder.module == nil
    if isPartitioned { try assembly.addFrozen(states, models.indices) }
    try assembly.addModule(states, isPartitioned: isPartitioned)
  }
}
