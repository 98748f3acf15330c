package import Bytes
import Tensors

/// A checkpoint of DeepSpeed: what each rank has of the parameters in full precision, and the module with the rest. Of
/// ZeRO 1, 2 and 3, universal ones, and those where nothing is divided. Opening reads the pickles, no data.
///
/// Parameters have the type that they are trained in, as a rule F32; buffers, and parameters that are not trained, that
/// of the module. An optimizer's moments are not looked at.
package final class ZeROCheckpoint: AssembledCheckpoint {
  package struct File: Sendable {
    /// Relative to the directory.
    package let name: String
    /// In bytes.
    package let size: Int
  }

  /// The directory of the files, as the user named it or the one above it.
  package let path: String
  package let directory: InputDirectory
  /// The module's, by rank; then those of the optimizer or of single parameters.
  package let files: [File]
  /// Findings that are worth knowing and no errors, one line each.
  package let warnings: [Warning]
  /// Positions in `tensors` of those that are the very same parameter, two or more at a time.
  package let tied: [[Int]]

  package let assembled: AssembledTensors

  /// Whether there is one in a directory, whole or not.
  package static func isThere(in directory: InputDirectory) throws(Failure) -> Bool {
    try ZeROFolder.isThere(in: directory)
  }

  /// - Parameter directory: of the files, or the one above it: then `latest` in it says which, or it is the only one.
  /// - Throws: `missing` for a file of a rank that is not there, `malformed` where files say different things,
  ///   `unsupported` for one that is divided in another way too: by tensor or pipeline parallelism or by experts.
  package init(_ directory: InputDirectory) throws(Failure) {
    let folder = try ZeROFolder(ZeROFolder.find(in: directory))
    self.directory = folder.directory
    path = folder.directory.path
    let names = try ZeROFiles(folder)
    let all = names.all
    let source = folder.directory
    let pool = FilePool(identities: Array(repeating: nil, count: all.count)) { (index) throws(Failure) in
      try source.open(path: all[index])
    }
    var assembly = ZeROAssembly(pool)
    do throws(Failure) { try names.read(into: &assembly) } catch { throw error.located(file: path) }
    for position in all.indices where assembly.sizes[position] == nil { try assembly.open(position) }
    files = all.indices.map { File(name: all[$0], size: assembly.sizes[$0] ?? 0) }
    assembled = AssembledTensors(assembly.tensors, in: all, pool)
    warnings = assembly.warnings
    tied = assembly.tied
  }
}
