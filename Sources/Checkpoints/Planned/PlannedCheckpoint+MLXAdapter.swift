import Adapters
import Bytes
import JSON
import ModelFamilies
import Tensors

/// An adapter of mlx-lm: `adapters.safetensors` with `MODULE.lora_a` [in, r] and `MODULE.lora_b` [r, out], of which
/// `scale · (a·b)ᵀ` is added to the weight [out, in]; with DoRA also `MODULE.m` [out].
extension PlannedCheckpoint {
  static let mlxAdapterName = "adapters.safetensors"

  /// - Throws: `malformed` for one that contradicts itself, `unsupported` for one that PEFT has no form of.
  init(mlxAdapter path: String) throws(Failure) {
    let directory = try InputDirectory(path: path)
    let settings = try MLXAdapterSettings(directory.open(Adapter.configName, as: "\(path)/\(Adapter.configName)"))
    let base = try StoredSafetensors(path: "\(path)/\(Self.mlxAdapterName)")
    let factors: MLXFactors
    do throws(Failure) { factors = try MLXFactors(base.tensors, settings) } catch {
      throw error.located(file: "\(path)/\(Self.mlxAdapterName)")
    }
    try self.init(
      base, factors.weights, container: "mlx-adapter", directory,
      fileNames: [Self.mlxAdapterName, Adapter.configName], warnings: base.warnings + settings.warnings,
      adapterConfig: factors.configuration(settings))
  }
}

extension Adapter {
  static func openMLX(_ path: String) throws(Failure) -> Adapter {
    let stored = try PlannedCheckpoint(mlxAdapter: path)
    guard let directory = stored.directory, let config = stored.adapterConfig else {
      throw Failure(.internal, "an adapter without a configuration", file: path)
    }
    let name = PlannedCheckpoint.mlxAdapterName
    return try Adapter(
      path: path, configuration: AdapterConfiguration(parsing: config.bytes(.compact), file: path), source: stored,
      directory: directory, files: [directory.open(name, as: "\(path)/\(name)")], warnings: stored.warnings)
  }
}

/// The tensors of an adapter of mlx-lm, as PEFT has them.
private struct MLXFactors {
  private(set) var weights: [PlannedWeight] = []
  private(set) var rank: Int
  private var modules: Set<String> = []
  private let prefix = "base_model.model."

  init(_ tensors: [TensorInfo], _ settings: MLXAdapterSettings) throws(Failure) {
    rank = settings.rank ?? 0
    for (index, tensor) in tensors.enumerated() {
      do throws(Failure) { try add(index, tensor, settings) } catch {
        throw error.located(tensor: tensor.name.string)
      }
    }
  }

  private mutating func add(_ index: Int, _ tensor: TensorInfo, _ settings: MLXAdapterSettings) throws(Failure) {
    let name = tensor.name.string
    guard let dot = name.lastIndex(of: "."),
      let kind = ["lora_a", "lora_b", "m"].first(where: { $0 == name[dot...].dropFirst() })
    else {
      throw Failure(
        .unsupported, "is no lora_a, lora_b or m of mlx-lm: only those of linear layers and embeddings are read")
    }
    let module = String(name[..<dot])
    let isEmbedding = EmbeddingNames.isInput(module + ".weight")
    if kind == "m" {
      guard settings.usesDoRA else {
        throw Failure(.malformed, "is a length of DoRA, and fine_tune_type is not 'dora'")
      }
      guard !isEmbedding else { throw Failure(.unsupported, "is DoRA of an embedding, which PEFT does otherwise") }
      guard tensor.shape.count == 1 else { throw Failure(.malformed, "has shape \(tensor.shape), expected is one row") }
      weights.append(
        PlannedWeight(
          name: TensorName(prefix + module + ".lora_magnitude_vector"), shape: tensor.shape, source: .stored(index)))
      return
    }
    if tensor.shape.count == 3 {
      throw Failure(
        .unsupported,
        "is of experts that MLX has in one tensor (SwitchLinear): PEFT has no such form; fuse it with "
          + "mlx_lm.fuse")
    }
    guard tensor.shape.count == 2 else { throw Failure(.malformed, "has shape \(tensor.shape), expected is a matrix") }
    let isA = kind == "lora_a"
    let found = tensor.shape[isA ? 1 : 0]
    if rank == 0 { rank = found }
    guard found == rank else {
      throw Failure(.malformed, "has shape \(tensor.shape), expected is the rank \(rank) in dimension \(isA ? 1 : 0)")
    }
    modules.insert(module)
    let factor = isEmbedding ? ".lora_embedding_" : ".lora_"
    weights.append(
      PlannedWeight(
        name: TensorName(prefix + module + factor + (isA ? "A" : "B") + (isEmbedding ? "" : ".weight")),
        shape: tensor.shape.reversed(), source: .stored(index), transform: .transpose))
  }

  // MARK: - Configuration

  /// `adapter_config.json` of PEFT: α is the scale times the rank.
  func configuration(_ settings: MLXAdapterSettings) -> JSONValue {
    let (names, layers) = targets
    var made = ExtractedConfiguration(rank: rank, base: settings.baseModel, targets: .list(names))
    made.layers = layers
    made.usesDoRA = settings.usesDoRA
    made.taskType = "CAUSAL_LM"
    let alpha = settings.scale * Double(rank)
    made.alpha = Int(exactly: alpha).map(JSONValue.number) ?? JSONNumber(alpha).map(JSONValue.number) ?? .null
    return made.json
  }

  /// Ends of modules' paths and the layers that have them, where each of those has all of them; else whole paths.
  private var targets: (names: [String], layers: [Int]?) {
    var inner: [Int: Set<String>] = [:]
    for module in modules {
      let parts = module.split(separator: ".", omittingEmptySubsequences: false)
      guard let at = parts.firstIndex(where: { Int($0) != nil }), at > 0, at + 1 < parts.count,
        let layer = Int(parts[at])
      else { return (modules.sorted(), nil) }
      inner[layer, default: []].insert(parts[(at + 1)...].joined(separator: "."))
    }
    guard let first = inner.values.first, inner.values.allSatisfy({ $0 == first }) else {
      return (modules.sorted(), nil)
    }
    return (first.sorted(), inner.keys.sorted())
  }
}
