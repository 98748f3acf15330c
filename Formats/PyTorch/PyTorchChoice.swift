import Bytes

/// Which files of a directory are its checkpoint.
enum PyTorchChoice: Equatable {
  case index(String)
  case file(String)
  /// Numbered shards without an index, all of them.
  case shards([String])

  private static let indexEnding = ".bin.index.json"
  static let singleName = "pytorch_model.bin"
  private static let singleNames = [singleName, "adapter_model.bin"]
  private static let indexName = "pytorch_model.bin.index.json"

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

  /// - Parameter names: the directory's files, sorted. Hidden ones do not count.
  init(names: [String]) throws(Failure) {
    let names = names.filter { !$0.hasPrefix(".") }
    let indexes = names.filter { $0.hasSuffix(Self.indexEnding) }
    if indexes.contains(Self.indexName) {
      self = .index(Self.indexName)
      return
    }
    if indexes.count > 1 {
      throw Failure(
        .malformed,
        "holds \(indexes.count) indexes (\(Self.list(indexes))) and none is '\(Self.indexName)': which one is meant?")
    }
    if let only = indexes.first {
      self = .index(only)
      return
    }
    if let single = Self.singleNames.first(where: names.contains) {
      self = .file(single)
      return
    }
    let weights = names.filter { Self.isWeights($0) }
    let numbered = weights.filter { NumberedName($0) != nil }
    if let first = numbered.first, let parts = NumberedName(first) {
      let stems = Set(numbered.compactMap { NumberedName($0)?.stem })
      let numbers = Set(numbered.compactMap { NumberedName($0)?.number })
      guard stems.count == 1, numbered.count == parts.total, numbers == Set(1...parts.total) else {
        throw Failure(
          .missing,
          "holds shard \(parts.number) of \(parts.total) but no '\(parts.stem.printable(limit: 128))\(Self.indexEnding)'"
        )
      }
      self = .shards(numbered)
      return
    }
    guard weights.count <= 1 else {
      throw Failure(
        .malformed,
        "holds \(weights.count) PyTorch files (\(Self.list(weights))), no index and no '\(Self.singleName)': name the "
          + "one that is meant")
    }
    guard let only = weights.first else { throw Failure(.missing, "holds no PyTorch file") }
    self = .file(only)
  }

  static func isThere(among names: [String]) -> Bool {
    names.contains { !$0.hasPrefix(".") && ($0.hasSuffix(indexEnding) || isWeights($0)) }
  }

  static func isModelThere(among names: [String]) -> Bool {
    names.contains { $0 == singleName || $0.hasSuffix(indexEnding) }
  }

  /// What a trainer puts beside a model is none.
  private static func isWeights(_ name: String) -> Bool {
    let others = [
      "training_args", "optimizer", "scheduler", "scaler", "rng_state", "random_states", "sampler", "dl_state_dict",
      "custom_checkpoint",
    ]
    return [".bin", ".pt", ".pth"].contains { name.hasSuffix($0) } && !others.contains { name.hasPrefix($0) }
  }

  private static func list(_ names: [String]) -> String {
    let shown = names.prefix(3).map { "'\($0.printable(limit: 100))'" }.joined(separator: ", ")
    return names.count > 3 ? shown + ", …" : shown
  }
}

/// `STEM-00001-of-00003.bin` taken apart.
struct NumberedName {
  let stem: String
  let number: Int
  let total: Int

  init?(_ name: String) {
    guard let dot = name.lastIndex(of: ".") else { return nil }
    let parts = name[..<dot].split(separator: "-", omittingEmptySubsequences: false)
    guard parts.count >= 4, parts[parts.count - 2] == "of", let total = Int(parts[parts.count - 1]), total > 1,
      total < 100_000, let number = Int(parts[parts.count - 3])
    else { return nil }
    stem = parts.dropLast(3).joined(separator: "-")
    self.number = number
    self.total = total
  }
}
