package import Bytes
package import PyTorch
package import Tensors

/// What processes that trained or ran a model together saved, each its part.
package struct StoredTraining: StoredCheckpoint {
  package let checkpoint: any TrainingCheckpoint
  /// The directory of the model's configuration and tokenizer: that of the files, one that it lies in, or the same.
  package let directory: InputDirectory?
  package let container: String
  /// The path as the user named it.
  package let path: String
  /// What stands before the files' names, seen from the directory; nil when they are not in it.
  private let folder: String?

  /// - Parameter path: of `.metadata` and what belongs to it, or of a directory of the Trainer that has such a directory.
  package init(distributed path: String) throws(Failure) {
    let directory = try InputDirectory(path: path)
    var (files, folder): (InputDirectory, String?) = (directory, "")
    if try !DistributedCheckpoint.isThere(in: directory), let name = try Self.folder(of: directory) {
      (files, folder) = (try InputDirectory(path: path + "/" + name), name + "/")
    }
    self.init(try DistributedCheckpoint(files), "torch.distributed.checkpoint", path, directory, folder)
  }

  /// - Parameter path: of a directory of DeepSpeed with `latest`, or of the one that it names.
  package init(deepSpeed path: String) throws(Failure) {
    let directory = try InputDirectory(path: path)
    let checkpoint = try ZeROCheckpoint(directory)
    let isInside = checkpoint.directory.identity != directory.identity
    let folder = isInside ? FileName.last(of: checkpoint.path) + "/" : ""
    self.init(checkpoint, "deepspeed", path, directory, folder)
  }

  init(consolidated checkpoint: ConsolidatedCheckpoint, _ directory: InputDirectory) {
    self.checkpoint = checkpoint
    container = "consolidated"
    path = directory.path
    (self.directory, folder) = (directory, "")
  }

  private init(
    _ checkpoint: any TrainingCheckpoint, _ container: String, _ path: String, _ directory: InputDirectory,
    _ folder: String?
  ) {
    self.checkpoint = checkpoint
    self.container = container
    self.path = path
    (self.directory, self.folder) = Self.configured(directory, path, folder)
  }

  /// Whether a directory is one of these.
  package static func isDistributed(_ directory: InputDirectory) throws(Failure) -> Bool {
    if try DistributedCheckpoint.isThere(in: directory) { return true }
    return try folder(of: directory) != nil
  }

  private static func folder(of directory: InputDirectory) throws(Failure) -> String? {
    for name in DistributedCheckpoint.folders where directory.contains(name) {
      let path = directory.path + "/" + name
      if InputDirectory.exists(at: path), try DistributedCheckpoint.isThere(in: InputDirectory(path: path)) {
        return name
      }
    }
    return nil
  }

  /// A checkpoint of a training run lies in a directory of the model, as a rule.
  private static func configured(
    _ directory: InputDirectory, _ path: String, _ folder: String?
  ) -> (directory: InputDirectory, folder: String?) {
    if !directory.contains(StoredModel.configName), let parent = try? InputDirectory(path: path + "/.."),
      parent.contains(StoredModel.configName)
    {
      return (parent, nil)
    }
    return (directory, folder)
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
