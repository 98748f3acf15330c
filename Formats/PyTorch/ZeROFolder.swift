import Bytes

/// The directory of one saved step, and which files of it there are to read.
struct ZeROFolder {
  let directory: InputDirectory
  /// One for all ranks, of stages 0 to 2.
  private(set) var module: String?
  /// One for each rank, of stage 3.
  private(set) var partitioned = ZeRORanks()
  private(set) var optimizers = ZeRORanks()
  /// Names of parameters, each a folder of a universal checkpoint; empty for another.
  let parameters: [String]
  /// Ranks of tensor parallelism.
  private(set) var partCount = 1

  private static let pointers = ["latest", "latest_universal"]
  private static let zero = "zero"
  private static let weights = "fp32.pt"

  /// Where a universal checkpoint has a parameter.
  static func path(of parameter: String) -> String { "\(zero)/\(parameter)/\(weights)" }

  /// - Throws: `unsupported` for one of experts or of a pipeline, and for one of tensor parallelism that is not
  ///   universal.
  init(_ directory: InputDirectory) throws(Failure) {
    self.directory = directory
    parameters = try Self.parameters(in: directory)
    for name in try directory.names() {
      switch ZeROName(name) {
      case .model(nil, 0): module = name
      case .model(let rank?, 0): try partitioned.add(name, rank)
      case .optimizer(let rank, 0): try optimizers.add(name, rank)
      case .model(_, let part), .optimizer(_, let part): partCount = max(partCount, part.addingSaturated(1))
      case .expert, .layer: if parameters.isEmpty { throw Self.refused(name) }
      case nil: continue
      }
    }
    guard partCount == 1 || !parameters.isEmpty else { throw Self.refused(partCount: partCount, directory.path) }
    if module != nil, let first = partitioned.first {
      throw Failure(
        .malformed, "is of stage 3, '\(module ?? "")' beside it of another: remove the one of another run", file: first)
    }
  }

  private static func refused(_ name: String) -> Failure {
    ZeROName(name) == .layer
      ? Failure(
        .unsupported,
        "is one layer of a pipeline: convert the checkpoint with ds_to_universal.py of DeepSpeed, whose result is read",
        file: name)
      : Failure(
        .unsupported,
        "holds experts apart from the model, which are not put together: gather the state_dict where it was trained "
          + "and save it with torch.save", file: name)
  }

  static func refused(partCount: Int, _ file: String) -> Failure {
    Failure(
      .unsupported,
      "holds parts of \(partCount) tensor-parallel ranks: convert it with ds_to_universal.py of DeepSpeed, whose "
        + "result is read", file: file)
  }

  // MARK: - Where it is

  /// The directory itself, the one that `latest` in it names, or the only one in it.
  ///
  /// - Throws: `missing` when there is none, `malformed` when there are several.
  static func find(in directory: InputDirectory) throws(Failure) -> InputDirectory {
    if try isStep(directory) { return directory }
    for pointer in try pointers(in: directory) {
      let tag = try tag(pointer, directory)
      guard let folder = try? directory.folder(tag) else {
        throw Failure(
          .missing, "names the folder '\(tag.printable(limit: 256))', which is not there", file: pointer)
      }
      return folder
    }
    let steps = try steps(in: directory)
    guard let only = steps.first else {
      throw Failure(.missing, "holds no checkpoint of DeepSpeed", file: directory.path)
    }
    guard steps.count == 1 else {
      throw Failure(
        .malformed,
        "holds \(counted(steps.count, "checkpoint")) of DeepSpeed and no file '\(pointers[0])' that names one: name "
          + "the folder that is meant", file: directory.path)
    }
    return only
  }

  static func isThere(in directory: InputDirectory) throws(Failure) -> Bool {
    if try isStep(directory) { return true }
    for pointer in try pointers(in: directory) {
      // A file of this name may be anything.
      guard let tag = try? tag(pointer, directory), let folder = try? directory.folder(tag) else { continue }
      return try isStep(folder)
    }
    return try !steps(in: directory).isEmpty
  }

  private static func pointers(in directory: InputDirectory) throws(Failure) -> [String] {
    let names = try directory.names()
    return pointers.filter { names.contains($0) }
  }

  private static func tag(_ pointer: String, _ directory: InputDirectory) throws(Failure) -> String {
    let text = String(decoding: try directory.open(pointer).contents(limit: 4096), as: UTF8.self)
    return text.split(whereSeparator: \.isNewline).first.map(String.init) ?? ""
  }

  private static func steps(in directory: InputDirectory) throws(Failure) -> [InputDirectory] {
    var steps: [InputDirectory] = []
    for entry in try directory.entries() where entry.kind == .directory && !entry.name.hasPrefix(".") {
      let folder = try directory.folder(entry.name)
      if try isStep(folder) { steps.append(folder) }
    }
    return steps
  }

  private static func isStep(_ directory: InputDirectory) throws(Failure) -> Bool {
    if try directory.names().contains(where: { ZeROName($0) != nil }) { return true }
    return try !parameters(in: directory).isEmpty
  }

  /// The folders in `zero`, when it is one of a universal checkpoint.
  private static func parameters(in directory: InputDirectory) throws(Failure) -> [String] {
    guard try directory.entries().contains(where: { $0.name == zero && $0.kind == .directory }) else { return [] }
    let folder = try directory.folder(zero)
    let names = try folder.entries().filter { $0.kind == .directory }.map(\.name)
    guard names.contains(where: { folder.contains(path: "\($0)/\(weights)") }) else { return [] }
    return names
  }
}
