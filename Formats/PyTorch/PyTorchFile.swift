public import Bytes
public import Tensors

/// One file of `torch.save` with a model's tensors, open for reading. Opening reads no tensor's data.
public struct PyTorchFile: TensorSource {
  public let file: InputFile
  public let contents: PyTorchContents
  public let tensors: [TensorInfo]

  public init(_ file: InputFile, limits: PickleLimits = PickleLimits()) throws(Failure) {
    self.file = file
    contents = try PyTorchContents(PyTorchArchive(file, limits: limits))
    tensors = contents.tensors.map(\.info)
  }

  public init(path: String) throws(Failure) { try self.init(HubCache.openModel(at: path)) }

  public func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    try contents.tensors[index].read(from: file, at: offset, into: &destination)
  }

  public func storedByteCount(of index: Int) -> Int { contents.tensors[index].storedByteCount }

  /// The offset in the file of a tensor's first byte; nil when its bytes are not one piece of the file.
  public func place(of index: Int) -> Int? { contents.tensors[index].range?.lowerBound }

  /// The identity of the file, as when it was opened.
  public var identity: FileIdentity { file.identity }

  /// - Throws: `io` when the file is no longer what it was when it was opened.
  public func checkUnchanged() throws(Failure) { try file.checkUnchanged() }
}

/// The tensors of a model in a file: those of the one dictionary in it that is a model's.
public struct PyTorchContents: Sendable {
  /// Where a dictionary of tensors is looked for below the root.
  static let roots = ["state_dict", "model", "module", "model_state_dict"]
  static let tensorLimit = 1_000_000

  /// In the order of their data.
  public let tensors: [PyTorchTensor]
  /// The key under which the dictionary stands; nil for the root itself.
  public let root: String?
  /// Entries beside tensors: the step of a training run, its options, the state of its optimizer.
  public let ignored: [String]
  /// Positions in `tensors` of those that are the very same view, two or more at a time.
  public let tied: [[Int]]
  private let order: KeyOrder

  /// - Throws: `malformed` when there is no such dictionary or more than one; what `tensor(of:named:)` throws.
  public init(_ archive: PyTorchArchive) throws(Failure) {
    do throws(Failure) {
      let (root, dictionary, others) = try Self.dictionary(of: archive)
      self.root = root
      var tensors: [PyTorchTensor] = []
      var ignored = others
      var seen: Set<PickleGraph.Reference> = []
      for (key, value) in archive.graph.pairs(dictionary) ?? [] {
        let name = archive.graph.text(key)
        guard archive.isTensor(value) else {
          let name = name ?? "\(archive.graph[key].kind)"
          try Self.checkIgnored(name, value, isBeside: root == nil, archive, &seen)
          ignored.append(name)
          continue
        }
        guard let name else { throw Failure(.malformed, "has a tensor whose key is no text") }
        guard tensors.count < Self.tensorLimit else {
          throw Failure(.malformed, "has more than the \(Self.tensorLimit) tensors allowed")
        }
        tensors.append(try archive.tensor(of: value, named: TensorName(name)))
      }
      self.ignored = ignored
      self.tensors = Self.sorted(tensors)
    } catch { throw error.located(file: archive.slice.file.name) }
    tied = Self.tied(tensors)
    let tensors = self.tensors
    order = KeyOrder(count: tensors.count) { tensors[$0].info.name.string }
  }

  /// The position in `tensors` of a name.
  public func index(of name: TensorName) -> Int? { order.position(of: name.string) { tensors[$0].info.name.string } }

  private static func sorted(_ tensors: [PyTorchTensor]) -> [PyTorchTensor] {
    let starts = tensors.map(\.start)
    return tensors.indices.sorted { (starts[$0], $0) < (starts[$1], $1) }.map { tensors[$0] }
  }

  /// Equal views lie side by side or among those that begin at the same byte.
  private static func tied(_ tensors: [PyTorchTensor]) -> [[Int]] {
    var groups: [PyTorchTensor.View: [Int]] = [:]
    for (index, tensor) in tensors.enumerated() { groups[tensor.view, default: []].append(index) }
    return groups.values.filter { $0.count > 1 }.sorted { $0[0] < $1[0] }
  }

  /// What a trainer keeps beside a model in one dictionary with it begins so.
  private static let trainers = ["optim", "opt_", "lr_", "sched", "scaler", "rng", "random", "ema", "loss", "callback"]

  /// - Throws: `unsupported` for an entry that is no tensor and has tensors of the model in it: they would be lost.
  private static func checkIgnored(
    _ name: String, _ value: PickleGraph.Reference, isBeside: Bool, _ archive: PyTorchArchive,
    _ seen: inout Set<PickleGraph.Reference>
  ) throws(Failure) {
    if name.hasSuffix("_extra_state") || isBeside && trainers.contains(where: name.lowercased().hasPrefix) { return }
    guard archive.holdsTensor(value, seen: &seen) else { return }
    throw Failure(
      .unsupported,
      "the entry '\(name.printable(limit: 256))' is a \(archive.graph[value].kind) with tensors in it, beside tensors: "
        + "save a dictionary of names and tensors")
  }

  // MARK: - The dictionary

  /// The dictionary of tensors, its key, and the keys beside it.
  private static func dictionary(
    of archive: PyTorchArchive
  ) throws(Failure) -> (root: String?, dictionary: PickleGraph.Reference, others: [String]) {
    let graph = archive.graph
    guard let pairs = graph.pairs(graph.root) else { throw noDictionary(archive) }
    var found: [(root: String?, dictionary: PickleGraph.Reference)] = []
    for root in roots {
      guard let value = graph.value(of: root, in: graph.root), let inner = graph.pairs(value),
        inner.contains(where: { archive.isTensor($0.value) })
      else { continue }
      found.append((root, value))
    }
    // Beside a model, a trainer may keep a loss or the state of a random generator as a tensor: no matrix.
    let isModel = pairs.contains { archive.isTensor($0.value) && (found.isEmpty || isMatrix($0.value, archive)) }
    if isModel { found.insert((nil, graph.root), at: 0) }
    guard let first = found.first else {
      if pairs.isEmpty { return (nil, graph.root, []) }
      let keys = pairs.prefix(5).compactMap { graph.text($0.key)?.printable(limit: 64) }
      throw Failure(
        .unsupported,
        "has no tensors at its root nor under \(roots.joined(separator: ", ")); there are the keys "
          + keys.map { "'\($0)'" }.joined(separator: ", ") + (pairs.count > 5 ? " …" : "")
          + (isOfHQQ(pairs.prefix(64).map(\.value), graph)
            ? "; that is what HQQ saves: its 'save_to_safetensors' is read" : ""))
    }
    guard found.count == 1 else {
      let places = found.map { $0.root.map { "under '\($0)'" } ?? "at its root" }.joined(separator: " and ")
      throw Failure(
        .malformed, "has tensors \(places): which are the model is not clear, save the state_dict alone")
    }
    let others = first.root == nil ? [] : pairs.compactMap { graph.text($0.key) }.filter { $0 != first.root }
    return (first.root, first.dictionary, others)
  }

  /// Whether one is a dictionary as HQQ makes of each module.
  private static func isOfHQQ(_ values: [PickleGraph.Reference], _ graph: PickleGraph) -> Bool {
    values.contains { graph.pairs($0) != nil && graph.value(of: "W_q", in: $0) != nil }
  }

  /// Whether a tensor has two dimensions or more; true also for one that is not read.
  private static func isMatrix(_ reference: PickleGraph.Reference, _ archive: PyTorchArchive) -> Bool {
    guard let tensor = try? archive.tensor(of: reference, named: "") else { return true }
    return tensor.shape.count > 1
  }

  /// What is saved instead of a dictionary.
  private static func noDictionary(_ archive: PyTorchArchive) -> Failure {
    let graph = archive.graph
    if archive.isTensor(graph.root) {
      return Failure(.unsupported, "holds one tensor without a name, expected a dictionary of names and tensors")
    }
    if let (name, _) = graph.call(graph.root) {
      return Failure(
        .unsupported,
        "holds an object of the class '\(name.printable(limit: 256))', which only its own code can load: load it with "
          + "that and save its state_dict()")
    }
    return Failure(.unsupported, "holds a \(graph[graph.root].kind), expected a dictionary of names and tensors")
  }
}
