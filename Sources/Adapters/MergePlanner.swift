import Bytes
import Patterns
import Quantization
import Tensors

/// Builds a `MergePlan`: every tensor of the adapters finds its place among those of the base, or is an error.
struct MergePlanner {
  /// A tensor of the result while it is being put together.
  struct Slot {
    var name: TensorName
    var parameter: String
    var part: BaseModel.Part?
    var isTransposed: Bool?
    /// Position in the base's tensors.
    var base: Int
    var shape: [Int]
    /// The adapter's tensor that takes the place of the base's.
    var replacement: (adapter: Int, tensor: Int)?
    var deltas: [LowRankDelta] = []
    var vectors: [(adapter: Adapter, tensor: Int, scale: Float)] = []
    var rows: [(adapter: Adapter, tensor: Int, rowOf: [Int: Int])] = []
    /// Whether the rows are part of what the deltas are added to.
    var rowsComeFirst = false
    var isStack = false
    /// Rounded to the base's dtype before it is added, whatever the settings say of linear layers.
    var isRoundedFirst = false
    var changes: [(adapter: Int, scale: Double?)] = []

    var isChanged: Bool { !changes.isEmpty }
  }

  let base: BaseModel
  let adapters: [Adapter]
  let settings: MergeSettings
  var slots: [Slot] = []
  var warnings: [Warning] = []
  var staysTied: Bool
  var replicatedLayers: [Int]?
  /// Adapter and position of each tensor that found no place.
  var unmatched: [(adapter: Int, tensor: Int)] = []
  var nextFactorID = 0
  /// Whether a head that is added begins as what an adapter has of the tied embedding.
  var sharesStorage = false
  var classifier: MergePlan.Classifier?

  private var byName: [String: Int] = [:]
  private var byParameter: [String: [Int]] = [:]
  /// The direct parameters of each module.
  private var byModule: [String: Set<String>] = [:]

  init(base: BaseModel, adapters: [Adapter], settings: MergeSettings) throws(Failure) {
    self.base = base
    self.adapters = adapters
    self.settings = settings
    staysTied = base.tiesEmbeddings
    for (index, entry) in base.entries.enumerated() {
      let info = base.source.tensors[index]
      slots.append(
        Slot(
          name: info.name, parameter: entry.parameter, part: entry.part, isTransposed: entry.isTransposed, base: index,
          shape: info.shape))
    }
    try replicateLayers()
    for index in slots.indices { register(index) }
    for adapter in adapters { warnings += adapter.warnings }
  }

  mutating func register(_ index: Int) {
    byName[slots[index].name.string] = index
    let parameter = slots[index].parameter
    byParameter[parameter, default: []].append(index)
    if let dot = parameter.lastIndex(of: ".") {
      byModule[String(parameter[..<dot]), default: []].insert(String(parameter[parameter.index(after: dot)...]))
    }
  }

  // MARK: - Finding parameters

  /// Where a parameter of the model is stored.
  enum Home {
    case whole(Int)
    /// The tensors by expert and part, where experts are stored one by one.
    case parts([[Int]])
  }

  /// By the name in the model, by that in the file, and with the base model's prefix put in front or taken away.
  func home(_ path: String, _ parameter: String) -> Home? {
    let full = path.isEmpty ? parameter : "\(path).\(parameter)"
    var candidates = [full]
    if !base.basePrefix.isEmpty {
      let prefix = base.basePrefix + "."
      candidates.append(full.hasPrefix(prefix) ? String(full.dropFirst(prefix.count)) : prefix + full)
    }
    for name in candidates {
      if let home = stored(name) { return home }
    }
    return nil
  }

  private func stored(_ name: String) -> Home? {
    if let found = byParameter[name] {
      if found.count == 1, slots[found[0]].part == nil { return .whole(found[0]) }
      if let parts = experts(found) { return .parts(parts) }
    }
    return byName[name].map { .whole($0) }
  }

  /// The slots of one stacked parameter by expert and part; nil unless each is there once.
  private func experts(_ found: [Int]) -> [[Int]]? {
    guard let count = slots[found[0]].part?.count, count > 0, found.count % count == 0 else { return nil }
    var grid = [[Int?]](repeating: Array(repeating: nil, count: count), count: found.count / count)
    for index in found {
      guard let part = slots[index].part, part.count == count, part.expert < grid.count, part.index < count,
        grid[part.expert][part.index] == nil
      else { return nil }
      grid[part.expert][part.index] = index
    }
    return grid.map { $0.compactMap(\.self) }
  }

  /// The direct parameters of a module, in the order in which PEFT wraps them.
  func parameters(of path: String) -> [String] {
    let names = (byModule[path] ?? []).union(byModule["\(base.basePrefix).\(path)"] ?? [])
    // The order in which model classes declare what goes into the experts and what comes out.
    func rank(_ name: String) -> Int { name.hasPrefix("down") || name.hasPrefix("w2") ? 1 : 0 }
    return names.sorted { (rank($0), $0) < (rank($1), $1) }
  }

  // MARK: - Every tensor of an adapter is used

  func checkAllUsed() throws(Failure) {
    guard let first = unmatched.first else { return }
    let adapter = adapters[first.adapter]
    let own = unmatched.filter { $0.adapter == first.adapter }
    var text = "\(own.count) of the adapter's \(adapter.tensors.count) tensors belong to nothing in the base: "
    text += own.prefix(4).map { miss in
      let name = adapter.tensors[miss.tensor].name.string
      return "'\(name.printable(limit: 160))'" + (nearestName(AdapterKey(name)).map { " (nearest: '\($0)')" } ?? "")
    }.joined(separator: ", ")
    if own.count > 4 { text += " and \(own.count - 4) more" }
    throw Failure(
      .malformed, text, file: adapter.weightsPath,
      tensor: adapter.tensors[first.tensor].name.string)
  }

  /// The base's name that takes the fewest changes to become the module's.
  private func nearestName(_ key: AdapterKey) -> String? {
    let wanted = Array((key.module + ".weight").utf8.suffix(120))
    var best: (name: String, distance: Int)?
    // A large model has as many names as a small one in its first thousands.
    for slot in slots.prefix(4000) {
      let name = Array(slot.parameter.utf8.suffix(120))
      guard abs(name.count - wanted.count) < best?.distance ?? max(8, wanted.count / 2) else { continue }
      let distance = EditDistance.between(name, wanted)
      if distance < best?.distance ?? (wanted.count / 2 + 1) { best = (slot.name.string, distance) }
    }
    return best?.name.printable(limit: 160)
  }

  // MARK: - The result

  mutating func record(_ slot: Int, _ adapter: Int, scale: Double?) {
    slots[slot].changes.append((adapter, scale))
  }

  func items(in type: FloatType?) throws(Failure) -> [MergedTensor] {
    var items: [MergedTensor] = []
    for slot in slots {
      let stored = base.source.tensors[slot.base]
      let own = FloatType(elementType: stored.type)
      var element = stored.type
      if let type, own != nil { element = type.element }
      let info = try TensorInfo(name: slot.name, type: element, shape: slot.shape)
      let origin = slot.replacement.map { MergedTensor.Origin.adapter(adapters[$0.adapter], $0.tensor) }
      var item = MergedTensor(info: info, origin: origin ?? .base(slot.base))
      if slot.replacement != nil, stored.shape == slot.shape, own != nil { item.replaced = slot.base }
      item.isStack = slot.isStack
      item.deltas = slot.deltas
      item.vectors = slot.vectors
      item.rows = slot.rows
      item.rowsComeFirst = slot.rowsComeFirst
      if slot.isChanged {
        guard let own else {
          throw Failure(
            .unsupported, "is \(stored.type.name); adapters are merged into F32, BF16 and F16 only",
            tensor: slot.name.string)
        }
        // PEFT loads the model in the dtype that it merges in.
        item.deltaType = roundsFirst(slot) ? type ?? own : .f32
      }
      items.append(item)
    }
    return items
  }

  private func roundsFirst(_ slot: Slot) -> Bool {
    // PEFT computes DoRA's direction and the sum of biases without rounding in between, in both of its ways.
    if slot.deltas.isEmpty || slot.deltas.contains(where: { $0.magnitude != nil }) { return false }
    switch settings.rounding {
    case .once: return false
    // Of several adapters the deltas are added up first, and everything is rounded once.
    case .peft: return slot.isRoundedFirst && slot.deltas.count == 1
    case .peftSafe: return true
    }
  }
}
