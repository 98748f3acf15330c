import Adapters
package import Bytes
import JSON
package import PyTorch
package import Tensors

/// What processes that trained or ran a model together saved, each its part.
package struct StoredTraining: StoredCheckpoint {
  package let checkpoint: any TrainingCheckpoint
  /// The directory of the model's configuration and tokenizer: that of the files, one beside it, or the same.
  package private(set) var directory: InputDirectory?
  package let container: String
  /// The path as the user named it.
  package let path: String
  /// What stands before the files' names, seen from the directory; nil when they are not in it.
  private var folder: String?

  /// What RL trainers put configuration and tokenizer into, beside the ranks' files.
  private static let huggingFace = "huggingface"
  private static let runSettings = "fsdp_config.json"

  /// - Parameter path: of `.metadata` and what belongs to it, of shards, or of a directory of the Trainer that has
  ///   such a directory.
  package init(distributed path: String) throws(Failure) {
    let (base, folder) = try Self.located(path, DistributedCheckpoint.folders, Self.isDistributedItself)
    let files = folder.isEmpty ? base : try base.folder(folder)
    self.init(
      try DistributedCheckpoint(files, parts: ShardingInfo.parts), "torch.distributed.checkpoint", path, base, folder)
  }

  /// - Parameter path: of a directory of DeepSpeed with `latest`, or of the one that it names.
  package init(deepSpeed path: String) throws(Failure) {
    let directory = try InputDirectory(path: path)
    let checkpoint = try ZeROCheckpoint(directory)
    let isInside = checkpoint.directory.identity != directory.identity
    self.init(checkpoint, "deepspeed", path, directory, isInside ? FileName.last(of: checkpoint.path) : "")
  }

  init(consolidated checkpoint: ConsolidatedCheckpoint, _ directory: InputDirectory) {
    self.checkpoint = checkpoint
    container = "consolidated"
    path = directory.path
    (self.directory, folder) = (directory, "")
  }

  /// - Parameter path: of the ranks' files, or of a step of verl that has its actor's.
  package init(ranked path: String) throws(Failure) {
    let (base, folder) = try Self.located(path, RankedCheckpoint.folders, RankedCheckpoint.isThere)
    let files = folder.isEmpty ? base : try base.folder(folder)
    let checkpoint = try RankedCheckpoint(files)
    if files.contains(Self.runSettings) {
      let settings = try files.open(Self.runSettings).contents(limit: StoredModel.configLimit)
      let size = try JSONValue(parsing: settings, .python, file: Self.runSettings)["world_size"]?.int
      guard size ?? checkpoint.worldSize == checkpoint.worldSize else {
        throw Failure(
          .malformed, "says that the run had \(counted(size ?? 0, "rank")), the files are of \(checkpoint.worldSize)",
          file: Self.runSettings)
      }
    }
    self.init(checkpoint, "dtensor", path, base, folder)
  }

  /// - Parameter folder: of the files in the directory; empty where they are in itself.
  private init(
    _ checkpoint: any TrainingCheckpoint, _ container: String, _ path: String, _ base: InputDirectory, _ folder: String
  ) {
    self.checkpoint = checkpoint
    self.container = container
    self.path = path
    directory = base
    self.folder = folder.isEmpty ? "" : folder + "/"
    let isAdapter = checkpoint.tensors.contains { TrainedName.isWrapped($0.name.string) }
    let wanted = isAdapter ? Adapter.configName : StoredModel.configName
    guard !base.contains(wanted) else { return }
    let inside = [folder, Self.huggingFace].filter { !$0.isEmpty }.joined(separator: "/")
    for place in ["/" + inside] + Self.above(path) {
      guard let other = try? InputDirectory(path: path + place), other.contains(wanted) else { continue }
      configure(other)
      return
    }
  }

  package mutating func configure(_ directory: InputDirectory) { (self.directory, folder) = (directory, nil) }

  /// A checkpoint of a run lies in a directory of the model, as a rule; its files may be one folder deeper.
  private static func above(_ path: String) -> [String] {
    let parent = FileName.real(path + "/..").map { FileName.last(of: $0) } ?? ""
    return RunFolders.isCheckpoint(parent) ? ["/..", "/../.."] : ["/.."]
  }

  // MARK: - Where it is

  /// Whether a directory is one of `torch.distributed.checkpoint`.
  package static func isDistributed(_ directory: InputDirectory) throws(Failure) -> Bool {
    if try isDistributedItself(directory) { return true }
    return try folder(of: directory, DistributedCheckpoint.folders, isDistributedItself) != nil
  }

  /// Whether a directory is one of files that ranks saved one by one.
  package static func isRanked(_ directory: InputDirectory) throws(Failure) -> Bool {
    if try RankedCheckpoint.isThere(in: directory) { return true }
    return try folder(of: directory, RankedCheckpoint.folders, RankedCheckpoint.isThere) != nil
  }

  private static func isDistributedItself(_ directory: InputDirectory) throws(Failure) -> Bool {
    if try DistributedCheckpoint.isThere(in: directory) { return true }
    return try ShardingInfo.isThere(in: directory)
  }

  private static func folder(
    of directory: InputDirectory, _ names: [String], _ isThere: (InputDirectory) throws(Failure) -> Bool
  ) throws(Failure) -> String? {
    for entry in try directory.entries() where entry.kind == .directory && names.contains(entry.name) {
      if try isThere(directory.folder(entry.name)) { return entry.name }
    }
    return nil
  }

  private static func located(
    _ path: String, _ names: [String], _ isThere: (InputDirectory) throws(Failure) -> Bool
  ) throws(Failure) -> (base: InputDirectory, folder: String) {
    let base = try InputDirectory(path: path)
    if try isThere(base) { return (base, "") }
    let folder = try folder(of: base, names, isThere)
    return (base, folder ?? "")
  }

  package var files: CheckpointFiles { .training(self) }
  package var fileNames: [String] { checkpoint.fileNames.map { (folder ?? "") + $0 } }
  package var warnings: [Warning] { checkpoint.warnings }
  package var identities: [FileIdentity] { checkpoint.identities }
  package var tensors: [TensorInfo] { checkpoint.tensors }
  package var repeated: [Int] { checkpoint.tied.flatMap { $0.dropFirst() } }

  package func index(of name: TensorName) -> Int? { checkpoint.index(of: name) }
  package func location(of index: Int) -> (file: String, offset: Int) {
    let place = checkpoint.location(of: index)
    return ((folder ?? "") + place.file, place.offset)
  }
  package func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int)? {
    try checkpoint.place(of: index)
  }
  package func typeName(of index: Int) -> String { tensors[index].type.name }
  package func metadata(isWhole: Bool) -> [MetadataEntry] { [] }
  package func storedByteCount(of index: Int) -> Int { checkpoint.storedByteCount(of: index) }
  package func checkUnchanged() throws(Failure) { try checkpoint.checkUnchanged() }

  package func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    try checkpoint.read(index, at: offset, into: &destination)
  }
}
