import Bytes

/// Which files of a directory are its checkpoint.
struct CheckpointChoice {
  static let singleName = "model.safetensors"
  static let indexName = "model.safetensors.index.json"

  enum Kind: Equatable {
    case index(String)
    case file(String)
    /// Numbered shards without an index, all of them.
    case shards(NumberedShards)

    var name: String {
      switch self {
      case .index(let name), .file(let name): name
      case .shards(let shards): shards.names[0]
      }
    }
  }

  let kind: Kind
  /// Whether there is a `model.safetensors`, beside the index or alone.
  let hasSingleFile: Bool
  let warnings: [Warning]

  init(in directory: InputDirectory) throws(Failure) {
    do throws(Failure) {
      try self.init(names: directory.names())
    } catch {
      if error.code == .missing, let hint = HubCache.hint(for: directory) {
        throw Failure(.missing, hint, file: directory.path)
      }
      throw error.located(file: directory.path)
    }
  }

  /// - Parameter names: the directory's files, sorted. Hidden ones (`._model.safetensors`) do not count.
  init(names: [String]) throws(Failure) {
    let names = names.filter { !$0.hasPrefix(".") }
    let weights = names.filter { $0.hasSuffix(".safetensors") }
    let indexes = names.filter { $0.hasSuffix(".safetensors.index.json") }
    let others = names.filter { Self.isOtherWeights($0) }
    hasSingleFile = weights.contains(Self.singleName)
    kind = try Self.kind(weights: weights, indexes: indexes, others: others)
    warnings =
      others.isEmpty
      ? []
      : [
        "read: '\(kind.name)'; ignored: \(names: others), since loaders take safetensors files where there are any"
      ]
  }

  private static func kind(weights: [String], indexes: [String], others: [String]) throws(Failure) -> Kind {
    if indexes.contains(indexName) { return .index(indexName) }
    if indexes.count > 1 {
      throw Failure(
        .malformed, "holds \(indexes.count) indexes (\(list(indexes))) and none is '\(indexName)': which one is meant?")
    }
    if let only = indexes.first { return .index(only) }
    if weights.contains(singleName) { return .file(singleName) }
    if let shards = NumberedShards(among: weights) { return .shards(shards) }
    if let shard = weights.compactMap(ShardName.init).first(where: { $0.total > 1 }) {
      throw Failure(
        .missing, "holds shard \(shard.number) of \(shard.total) but no '\(shard.stem).safetensors.index.json'")
    }
    if weights.count > 1 {
      throw Failure(
        .malformed,
        "holds \(weights.count) safetensors files (\(list(weights))), no index and no '\(singleName)': "
          + "name the one that is meant")
    }
    if let only = weights.first { return .file(only) }
    guard others.isEmpty else {
      throw Failure(.unsupported, "holds no safetensors file, only weights of another kind (\(list(others)))")
    }
    throw Failure(.missing, "holds no safetensors file")
  }

  /// PyTorch, GGUF and other weights, by the names that the field gives them.
  private static func isOtherWeights(_ name: String) -> Bool {
    name.hasSuffix(".gguf") || name.hasSuffix(".pth") || name.hasSuffix(".bin") && name.hasPrefix("pytorch_model")
  }

  private static func list(_ names: [String]) -> String {
    let shown = names.prefix(3).map { "'\($0.printable(limit: 100))'" }.joined(separator: ", ")
    return names.count > 3 ? shown + ", …" : shown
  }
}

/// Shards that say by their numbers that none of them is missing.
struct NumberedShards: Equatable {
  let stem: String
  /// Sorted by bytes.
  let names: [String]

  /// Nil unless there is exactly one such set and no shard of another. `model-00001-of-00002` may lie beside the
  /// `consolidated-…` of the same weights: then only an index tells which is meant.
  ///
  /// - Parameter names: files, hidden ones left out.
  init?(among names: [String]) {
    var found: [(name: String, shard: ShardName)] = []
    for name in names {
      if let shard = ShardName(name), shard.total > 1 { found.append((name, shard)) }
    }
    guard let first = found.first?.shard, found.count == first.total,
      found.allSatisfy({ $0.shard.stem == first.stem && $0.shard.total == first.total }),
      Set(found.map(\.shard.number)) == Set(1...first.total)
    else { return nil }
    stem = first.stem
    self.names = found.map(\.name).sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
  }

  init?(in directory: InputDirectory) throws(Failure) {
    self.init(among: try directory.names().filter { !$0.hasPrefix(".") && $0.hasSuffix(".safetensors") })
  }
}

/// `STEM-00001-of-00003.safetensors` taken apart.
struct ShardName: Equatable {
  let stem: String
  let number: Int
  let total: Int

  init?(_ name: String) {
    guard name.hasSuffix(".safetensors") else { return nil }
    let parts = name.dropLast(".safetensors".count).split(separator: "-", omittingEmptySubsequences: false)
    guard parts.count >= 4, parts[parts.count - 2] == "of", let total = Int(parts[parts.count - 1]),
      let number = Int(parts[parts.count - 3])
    else { return nil }
    self.stem = parts.dropLast(3).joined(separator: "-")
    self.number = number
    self.total = total
  }

  /// The name of one of `total` shards; of the only one, without a number.
  static func text(stem: String, number: Int, of total: Int) -> String {
    func five(_ value: Int) -> String {
      let digits = String(value)
      return String(repeating: "0", count: max(0, 5 - digits.utf8.count)) + digits
    }
    return total == 1 ? "\(stem).safetensors" : "\(stem)-\(five(number))-of-\(five(total)).safetensors"
  }
}
