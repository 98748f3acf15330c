import Bytes

/// What the name of a file of DeepSpeed says that is in it.
enum ZeROName: Equatable {
  /// The module, and what there is to know of its parameters. A rank is that of data parallelism, nil where the file is
  /// one for all of them; the part is the rank of tensor parallelism.
  case model(rank: Int?, part: Int)
  /// One rank's share of the parameters in full precision, beside the optimizer's state.
  case optimizer(rank: Int, part: Int)
  /// An expert of a layer, a layer of a pipeline, an optimizer of experts.
  case expert, layer

  /// Nil for a file of another kind.
  init?(_ name: String) {
    var words = name.split(separator: "_", omittingEmptySubsequences: false)[...]
    guard words.popLast() == "states.pt", let kind = words.popLast() else { return nil }
    // `layer_00-model_00-model_states.pt`
    if words.first == "layer", kind.hasSuffix("-model") {
      self = .layer
      return
    }
    guard kind == "model" || kind == "optim" else { return nil }
    if words.first == "expp" || words.contains("expert") {
      self = .expert
      return
    }
    if ["bf16", "fp16"].contains(words.first) { words.removeFirst() }
    guard let part = words.popLast().flatMap({ Int($0) }), part >= 0, words.popLast() == "rank",
      words.popLast() == "mp"
    else { return nil }
    if words.isEmpty, kind == "model" {
      self = .model(rank: nil, part: part)
      return
    }
    guard let rank = words.popLast().flatMap({ Int($0) }), rank >= 0, words.elementsEqual(["zero", "pp", "rank"])
    else { return nil }
    self = kind == "model" ? .model(rank: rank, part: part) : .optimizer(rank: rank, part: part)
  }
}

/// The files of one kind, by rank.
struct ZeRORanks {
  private var names: [Int: String] = [:]

  var count: Int { names.count }
  /// Of the lowest rank that is there.
  var first: String? { names.min { $0.key < $1.key }?.value }

  /// - Throws: `malformed` when a rank has two.
  mutating func add(_ name: String, _ rank: Int) throws(Failure) {
    if let other = names.updateValue(name, forKey: rank) {
      throw Failure(.malformed, "is of rank \(rank), as '\(other)' is: remove the one of another run", file: name)
    }
  }

  /// Those of all ranks, in their order.
  ///
  /// - Throws: `missing` for a rank that has none; `malformed` when there are more.
  func all(_ world: Int) throws(Failure) -> [String] {
    var all: [String] = []
    while all.count < world {
      guard let name = names[all.count] else {
        throw Failure(
          .missing, "the file is missing; the run had \(counted(world, "rank"))", file: expected(all.count))
      }
      all.append(name)
    }
    if let (rank, name) = names.filter({ $0.key >= world }).min(by: { $0.key < $1.key }) {
      throw Failure(
        .malformed, "is of rank \(rank), the run had \(counted(world, "rank")): remove it if another run left it",
        file: name)
    }
    return all
  }

  /// What a rank's file is called, by another's name.
  private func expected(_ rank: Int) -> String {
    guard let first else { return "zero_pp_rank_\(rank)_mp_rank_00_model_states.pt" }
    var words = first.split(separator: "_", omittingEmptySubsequences: false)
    if let place = words.firstIndex(of: "rank"), words.indices.contains(place + 1) { words[place + 1] = "\(rank)" }
    return words.joined(separator: "_")
  }
}
