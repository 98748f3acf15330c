import Bytes
import Tensors

extension ZeROAssembly {
  // MARK: - Stages 1 and 2

  /// Each group of parameters is one vector, of which every rank has a piece.
  mutating func addReplicated(_ states: ZeROModelStates, optimizers: Range<Int>) throws(Failure) {
    guard let groups = states.groups else {
      throw Failure(.malformed, "has no 'param_shapes', which say what the ranks divide", file: states.file.name)
    }
    var vectors = groups.map { _ in ZeROVector() }
    /// Elements of the first rank's pieces.
    var lengths: [Int] = []
    var first: ZeROOptimizerStates?
    var paddings: [[Int]]?
    for position in optimizers {
      let file = try file(position)
      let rank = position - optimizers.lowerBound
      let pieces = try pieces(file, first, world: optimizers.count)
      guard pieces.vectors.count == groups.count else {
        throw Failure(
          .malformed,
          "has \(counted(pieces.vectors.count, "group")) of parameters, '\(states.file.name)' has \(groups.count)",
          file: file.name)
      }
      for (group, piece) in pieces.vectors.enumerated() {
        let count = piece.info.elementCount
        if rank == 0 { lengths.append(count) }
        // What fills the last pieces is not saved.
        guard count == lengths[group] || (rank == optimizers.count - 1 && count < lengths[group]) else {
          throw Failure(
            .malformed,
            "group \(group) has \(counted(count, "element")) of rank \(rank), those before it \(lengths[group]) each",
            file: file.name)
        }
        try vectors[group].append(piece, file: position)
      }
      if first == nil {
        first = pieces
        paddings = try checked(pieces.paddings, groups, file.name)
      }
    }
    for (group, parameters) in groups.enumerated() {
      let type = first?.vectors[group].info.type
      try add(
        parameters, type, vectors[group], paddings?[group], (group, optimizers.count), states.file.name)
    }
    let fragments = try ZeROModelStates.fragments(states.file)
    for (name, shape) in states.frozen {
      guard let view = fragments[TensorName(name)] else { throw lacks(states.file, name) }
      guard view.shape == shape else {
        throw Failure(
          .malformed, "has shape \(view.shape), expected \(shape)", file: states.file.name, tensor: name)
      }
      try add(view, file: states.file.position)
    }
    try addModule(states, isPartitioned: false)
  }

  private mutating func add(
    _ parameters: [ZeROModelStates.Parameter], _ type: ElementType?, _ vector: ZeROVector, _ paddings: [Int]?,
    _ place: (group: Int, world: Int), _ file: String
  ) throws(Failure) {
    guard let type else { return }
    var end = 0
    for (number, (name, shape)) in parameters.enumerated() {
      let info = try Self.info(name, type, shape, file)
      let start = end
      end = start.addingSaturated(info.elementCount)
      guard end <= vector.count else {
        throw Failure(
          .malformed,
          "needs the elements \(start) to \(end) of group \(place.group), of which the ranks have \(vector.count)",
          file: file, tensor: name)
      }
      try add(info, vector.parts(start..<end, at: 0))
      end = end.addingSaturated(paddings?[number] ?? 0)
    }
    // Vectors are filled up to a multiple of this, and what fills the last rank's piece is left out again.
    let unit = 2 * place.world
    func units(_ count: Int) -> Int { count / unit + (count % unit == 0 ? 0 : 1) }
    guard units(end) == units(vector.count) else {
      throw Failure(
        .malformed,
        "its parameters take \(end) of the \(vector.count) elements that the ranks have of group \(place.group), "
          + "allowed is a rest below \(unit)", file: file)
    }
  }

  private func checked(
    _ paddings: [[Int]]?, _ groups: [[ZeROModelStates.Parameter]], _ file: String
  ) throws(Failure) -> [[Int]]? {
    guard let paddings else { return nil }
    guard paddings.map(\.count) == groups.map(\.count) else {
      throw Failure(
        .malformed,
        "param_alignment_paddings: are of groups of \(paddings.map(\.count)) parameters, the groups have "
          + "\(groups.map(\.count))", file: file)
    }
    return paddings
  }

  /// What a rank has, which must be of the same run as the first.
  private func pieces(
    _ file: ZeROFile, _ first: ZeROOptimizerStates?, world: Int
  ) throws(Failure) -> ZeROOptimizerStates {
    let states = try ZeROOptimizerStates(file)
    guard states.worldSize == world, states.stage == (first ?? states).stage else {
      throw Failure(
        .malformed,
        "is of stage \(states.stage) and \(counted(states.worldSize, "rank")), other files are of "
          + "stage \((first ?? states).stage) and \(world)", file: file.name)
    }
    return states
  }

  private func lacks(_ file: ZeROFile, _ name: String) -> Failure {
    Failure(.malformed, "is not in 'frozen_param_fragments'", file: file.name, tensor: name)
  }

  // MARK: - Stage 3

  /// Every parameter is divided among the ranks by itself.
  mutating func addPartitioned(
    _ states: ZeROModelStates, models: Range<Int>, optimizers: Range<Int>
  ) throws(Failure) {
    guard let groups = states.groups else {
      throw Failure(.malformed, "has no 'param_shapes', which say what the ranks divide", file: states.file.name)
    }
    var vectors: [ZeROVector] = []
    var first: ZeROOptimizerStates?
    let parameters = groups.flatMap(\.self)
    let needed = parameters.reduce(0) { $0.addingSaturated(Self.share($1.shape, optimizers.count)) }
    for position in optimizers {
      let file = try file(position)
      let pieces = try pieces(file, first, world: optimizers.count)
      if first == nil { first = pieces }
      var vector = ZeROVector()
      for piece in pieces.vectors { try vector.append(piece, file: position) }
      guard vector.count == needed else {
        throw Failure(
          .malformed,
          "has \(counted(vector.count, "element")) of the parameters, by '\(states.file.name)' a rank has \(needed)",
          file: file.name)
      }
      vectors.append(vector)
    }
    var start = 0
    for (name, shape) in parameters {
      guard let type = first?.vectors.first?.info.type else { throw lacks(states.file, name) }
      let info = try Self.info(name, type, shape, states.file.name)
      try add(info, Self.parts(of: info, vectors, from: start))
      start += Self.share(shape, optimizers.count)
    }
    try addFrozen(states, models)
    try addModule(states, isPartitioned: true)
  }

  /// Elements that a rank has of a parameter, the last ones' shares filled up; none of a shape that overflows, which is
  /// refused where the tensor is made.
  private static func share(_ shape: [Int], _ world: Int) -> Int {
    guard let count = try? TensorInfo(name: "", type: .f32, shape: shape).elementCount else { return 0 }
    return count / world + (count % world == 0 ? 0 : 1)
  }

  private static func parts(
    of info: TensorInfo, _ vectors: [ZeROVector], from start: Int
  ) -> [AssembledTensor.Part] {
    let share = share(info.shape, vectors.count)
    var parts: [AssembledTensor.Part] = []
    var offset = 0
    for vector in vectors where offset < info.elementCount {
      let count = min(share, info.elementCount - offset)
      parts += vector.parts(start..<start + count, at: offset)
      offset += count
    }
    return parts
  }

  /// What is not trained: a part of each in every rank's file.
  mutating func addFrozen(_ states: ZeROModelStates, _ models: Range<Int>) throws(Failure) {
    guard !states.frozen.isEmpty else { return }
    var vectors = states.frozen.map { _ in [ZeROVector]() }
    var types: [ElementType?] = states.frozen.map { _ in nil }
    for position in models {
      let file = try file(position)
      let fragments = try ZeROModelStates.fragments(file)
      for (index, (name, shape)) in states.frozen.enumerated() {
        guard let view = fragments[TensorName(name)] else { throw lacks(file, name) }
        let share = Self.share(shape, models.count)
        guard view.info.elementCount == share else {
          throw Failure(
            .malformed,
            "has \(counted(view.info.elementCount, "element")), expected of shape \(shape) among "
              + "\(counted(models.count, "rank")) are \(share)", file: file.name, tensor: name)
        }
        var vector = ZeROVector()
        try vector.append(view, file: position)
        vectors[index].append(vector)
        types[index] = types[index] ?? view.info.type
      }
    }
    for (index, (name, shape)) in states.frozen.enumerated() {
      guard let type = types[index] else { continue }
      let info = try Self.info(name, type, shape, states.file.name)
      try add(info, Self.parts(of: info, vectors[index], from: 0))
    }
  }

  // MARK: - Universal

  /// A parameter that a file has whole.
  ///
  /// - Parameter shape: what the module's file says; nil where it says nothing.
  mutating func addUniversal(_ name: String, _ position: Int, shape: [Int]?) throws(Failure) {
    let file = try open(position)
    let archive = try PyTorchArchive(file)
    // Of stage 3 the file is a vector of the elements, of others a dictionary with the tensor.
    let root = archive.graph.root
    let isVector = archive.isTensor(root)
    guard let reference = isVector ? root : archive.graph.value(of: "param", in: root) else {
      throw Failure(.malformed, "has neither a tensor nor one under 'param'", file: file.name, tensor: name)
    }
    let view = try archive.tensor(of: reference, named: TensorName(name))
    guard let shape = shape ?? (isVector ? nil : view.shape) else {
      throw Failure(.malformed, "is a vector, and nothing says what shape it has", file: file.name, tensor: name)
    }
    let info = try Self.info(name, view.info.type, shape, file.name)
    guard view.shape == (isVector ? [info.elementCount] : shape) else {
      throw Failure(
        .malformed, "has shape \(view.shape), by the module's file it is \(shape)", file: file.name, tensor: name)
    }
    try add(info, [.init(file: position, view: view, offsets: [0], sizes: [info.elementCount])])
  }
}
