import Bytes

/// The files that the ranks of a run have saved one by one: `model_world_size_N_rank_R.pt`, R from 0 to N-1.
struct RankedFiles {
  /// By rank.
  let names: [String]
  /// Files of optimizers, and of the run's state, that are not read.
  let skipped: Int

  private static let model = "model"
  private static let others = ["optim", "extra_state"]

  static func isThere(in directory: InputDirectory) throws(Failure) -> Bool {
    try directory.names().contains { Name($0)?.kind == model }
  }

  /// - Throws: `missing` for a rank without a file, `malformed` for files of several runs.
  init(_ directory: InputDirectory) throws(Failure) {
    var found: [Int: String] = [:]
    var first: (name: String, world: Int)?
    var skipped = 0
    for name in try directory.names() {
      guard let parts = Name(name) else { continue }
      guard parts.kind == Self.model else {
        if Self.others.contains(parts.kind) { skipped += 1 }
        continue
      }
      let run = first ?? (name, parts.world)
      first = run
      guard parts.world == run.world else {
        throw Failure(
          .malformed,
          "is of a run of \(counted(parts.world, "rank")), '\(run.name)' beside it of one of \(run.world): remove the "
            + "files of the other run", file: name)
      }
      guard parts.rank < parts.world else {
        throw Failure(.malformed, "is of rank \(parts.rank), the run had \(counted(parts.world, "rank"))", file: name)
      }
      found[parts.rank] = name
    }
    var names: [String] = []
    for rank in 0..<(first?.world ?? 0) {
      guard let name = found[rank] else {
        throw Failure(
          .missing, "the file is missing; the run had \(counted(first?.world ?? 0, "rank"))",
          file: Name(kind: Self.model, world: first?.world ?? 0, rank: rank).text)
      }
      names.append(name)
    }
    guard !names.isEmpty else {
      throw Failure(.missing, "holds no 'model_world_size_N_rank_R.pt'", file: directory.path)
    }
    self.names = names
    self.skipped = skipped
  }

  /// `KIND_world_size_N_rank_R.pt` taken apart.
  private struct Name {
    let kind: String
    let world: Int
    let rank: Int

    init(kind: String, world: Int, rank: Int) {
      self.kind = kind
      self.world = world
      self.rank = rank
    }

    /// Nil for another name, and for one whose numbers are written in another way.
    init?(_ name: String) {
      guard name.hasSuffix(".pt"), let end = name.firstRange(of: "_world_size_") else { return nil }
      kind = String(name[..<end.lowerBound])
      let numbers = name[end.upperBound...].dropLast(3).split(separator: "_", omittingEmptySubsequences: false)
      guard numbers.count == 3, numbers[1] == "rank", let world = Int(numbers[0]), let rank = Int(numbers[2]),
        world > 0, rank >= 0
      else { return nil }
      self.world = world
      self.rank = rank
      guard text == name else { return nil }
    }

    var text: String { "\(kind)_world_size_\(world)_rank_\(rank).pt" }
  }
}
