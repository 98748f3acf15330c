import Bytes
import Tensors

/// What DeepSpeed saves of the module.
struct ZeROModelStates {
  typealias Parameter = (name: String, shape: [Int])

  let file: ZeROFile
  /// Everything in the module's state_dict; of stage 3, parameters without their data.
  let module: [(name: String, value: PickleGraph.Reference)]
  let buffers: Set<TensorName>
  /// The trained parameters of each of the optimizer's groups, in the order of its vector; nil if nothing is divided.
  let groups: [[Parameter]]?
  /// Parameters that are not trained, as far as they are not in `module`.
  let frozen: [Parameter]
  /// Names of parameters that are another, and that one's.
  let shared: [(alias: String, original: String)]
  /// Ranks of tensor parallelism.
  let partCount: Int
  /// Experts are divided otherwise than everything else.
  let isAutoEP: Bool

  /// - Parameter isUniversal: the module may be missing, as it is where a pipeline was converted.
  init(_ file: ZeROFile, isUniversal: Bool) throws(Failure) {
    self.file = file
    let module = try file.named("module")
    guard isUniversal || module != nil else {
      throw Failure(.malformed, "has no 'module': is it the file of a model's states?", file: file.name)
    }
    self.module = module ?? []
    var buffers: Set<TensorName> = []
    for item in file["buffer_names"].flatMap(file.graph.items) ?? [] {
      if let name = file.graph.text(item) { buffers.insert(TensorName(name)) }
    }
    self.buffers = buffers
    groups = try Self.groups(file)
    frozen = file["frozen_param_fragments"] == nil ? [] : try Self.parameters(file, file["frozen_param_shapes"])
    var shared: [(alias: String, original: String)] = []
    for (alias, value) in try file.named("shared_params") ?? [] {
      guard let original = file.graph.text(value) else { throw file.wrong("shared_params", "texts") }
      shared.append((alias, original))
    }
    self.shared = shared
    partCount = file["mp_world_size"].flatMap(file.graph.integer) ?? 1
    let layers = (file["ds_autoep_layers"] ?? file["autoep_layers"]).flatMap(file.graph.items)
    isAutoEP = layers?.isEmpty == false
  }

  private static func groups(_ file: ZeROFile) throws(Failure) -> [[Parameter]]? {
    guard let listed = file["param_shapes"] else { return nil }
    guard let items = file.graph.items(listed) else { throw file.wrong("param_shapes", "a list of dictionaries") }
    var groups: [[Parameter]] = []
    for item in items { groups.append(try parameters(file, item)) }
    return groups
  }

  private static func parameters(
    _ file: ZeROFile, _ reference: PickleGraph.Reference?
  ) throws(Failure) -> [Parameter] {
    guard let reference else { return [] }
    var parameters: [Parameter] = []
    for (name, value) in try file.named(reference, "shapes of parameters") {
      parameters.append((name, try file.shape(value, name)))
    }
    return parameters
  }

  /// What a file has of the parameters that are not trained: all of each, and of stage 3 its rank's part.
  static func fragments(_ file: ZeROFile) throws(Failure) -> [TensorName: PyTorchTensor] {
    var fragments: [TensorName: PyTorchTensor] = [:]
    for (name, value) in try file.named("frozen_param_fragments") ?? [] {
      fragments[TensorName(name)] = try file.tensor(value, name)
    }
    return fragments
  }
}

/// What DeepSpeed saves of the optimizer, without its moments.
struct ZeROOptimizerStates {
  let stage: Int
  let worldSize: Int
  /// The rank's share of the parameters: a vector for each group of the optimizer, of stage 3 for each part of them.
  let vectors: [PyTorchTensor]
  /// Elements between the parameters of each group, behind each of them; nil where there are none.
  let paddings: [[Int]]?

  private static let key = "optimizer_state_dict"
  /// In stages 1 and 2, and in stage 3.
  private static let vectorKeys = ["single_partition_of_fp32_groups", "fp32_flat_groups"]

  init(_ file: ZeROFile) throws(Failure) {
    guard let reference = file[Self.key], let states = ZeROFile.dictionary(file.graph, reference) else {
      throw Failure(.malformed, "has no '\(Self.key)': is it the file of an optimizer's states?", file: file.name)
    }
    // The optimizer for bfloat16 that divides its own state only has no stage.
    let stage = states["zero_stage"].map { file.integer($0) ?? -1 } ?? 1
    guard (1...3).contains(stage) else {
      throw Failure(.unsupported, "is of stage \(stage) of ZeRO, which is not known", file: file.name)
    }
    self.stage = stage
    worldSize = try Self.worldSize(file, states["partition_count"])
    let key = Self.vectorKeys[stage == 3 ? 1 : 0]
    guard let items = states[key].flatMap(file.graph.items) else {
      throw Failure(.malformed, "has no list '\(key)', which stage \(stage) of ZeRO has", file: file.name)
    }
    var vectors: [PyTorchTensor] = []
    for (index, item) in items.enumerated() {
      let vector = try file.tensor(item, "\(key)[\(index)]")
      guard vector.shape.count == 1 else { throw file.wrong("\(key)[\(index)]", "a vector, shape is \(vector.shape)") }
      vectors.append(vector)
    }
    self.vectors = vectors
    paddings = try states["param_alignment_paddings"].flatMap { (list) throws(Failure) -> [[Int]]? in
      if file.graph[list].kind == .none { return nil }
      guard let groups = file.graph.items(list) else { throw file.wrong("param_alignment_paddings", "lists") }
      var paddings: [[Int]] = []
      for group in groups { paddings.append(try file.integers(group, "param_alignment_paddings")) }
      return paddings
    }
  }

  /// Of several numbers, one for each group, the largest is that of all ranks.
  private static func worldSize(_ file: ZeROFile, _ reference: PickleGraph.Reference?) throws(Failure) -> Int {
    guard let reference else { throw file.wrong("partition_count", "a number") }
    let single = file.graph.integer(reference)
    let counts = if let single { [single] } else { try file.integers(reference, "partition_count") }
    guard let count = counts.max(), count > 0 else { throw file.wrong("partition_count", "a number above 0") }
    guard counts.allSatisfy({ $0 == count }) else {
      throw Failure(
        .unsupported,
        "divides its groups among \(counts) ranks, as those of experts: gather the state_dict where it was trained and "
          + "save it with torch.save", file: file.name)
    }
    return count
  }
}
