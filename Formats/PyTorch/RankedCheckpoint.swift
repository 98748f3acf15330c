package import Bytes
import Tensors

/// What the ranks of an FSDP run have saved one by one, as verl and others that train with reinforcement do: a file of
/// `torch.save` of each, with its part of every tensor. Opening reads the pickles, no data.
package final class RankedCheckpoint: AssembledCheckpoint {
  /// The directory of the files as the user named it.
  package let path: String
  /// Findings that are worth knowing and no errors, one line each.
  package let warnings: [Warning]
  /// Positions in `tensors` of those that are the very same, two or more at a time.
  package let tied: [[Int]]

  package let assembled: AssembledTensors

  /// What the model is in, where a run has saved its critic too.
  package static let folders = ["actor"]

  /// Whether a directory is one, whole or not.
  package static func isThere(in directory: InputDirectory) throws(Failure) -> Bool {
    try RankedFiles.isThere(in: directory)
  }

  /// - Throws: `missing` for a rank's file that is not there, `malformed` where ranks say different things,
  ///   `unsupported` for tensors that are divided in a way that is not read.
  package init(_ directory: InputDirectory) throws(Failure) {
    path = directory.path
    let files = try RankedFiles(directory)
    let pool = FilePool(directory: directory, names: files.names)
    var assembly = RankedAssembly(worldSize: files.names.count)
    for rank in files.names.indices { try assembly.add(pool.file(rank)) }
    try assembly.finish()
    assembled = AssembledTensors(assembly.tensors, in: files.names, pool)
    tied = assembly.tied
    var warnings = assembly.warnings
    if files.skipped > 0 {
      warnings.append(
        "\(list: [path]): left out \(counted(files.skipped, "file")) of optimizers and of the run's state")
    }
    self.warnings = warnings
  }

  /// Ranks of the run.
  package var worldSize: Int { fileNames.count }
}
