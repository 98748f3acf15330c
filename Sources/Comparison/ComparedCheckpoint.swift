package import Bytes
package import Checkpoints
import GGUF
import PackedWeights
package import Tensors

/// One of the two checkpoints of a comparison. Its failures name files from where the user stands, because
/// both have files of the same names.
package struct ComparedCheckpoint: Sendable {
  /// The checkpoint's path as the user named it.
  package let path: String
  package let logical: LogicalTensors
  /// The logical tensors' values, with weights of `Conv1D` the way round that the other checkpoint has them.
  package let source: any TensorSource

  package var checkpoint: any StoredCheckpoint { logical.checkpoint }

  package static func open(_ path: String) throws(Failure) -> CheckpointFiles {
    do throws(Failure) { return try CheckpointFiles(path: path) } catch { throw located(error, path) }
  }

  /// - Parameter isRaw: a GGUF model is meant under its own names.
  package static func original(_ files: CheckpointFiles, isRaw: Bool = false) throws(Failure) -> OriginalModel {
    do throws(Failure) { return try OriginalModel(files, isRaw: isRaw) } catch {
      throw located(error, files.checkpoint.path)
    }
  }

  /// - Parameter turned: positions of matrices that lie the other way round in the other checkpoint.
  package init(_ original: OriginalModel, path: String, turned: Set<Int>) throws(Failure) {
    self.path = path
    logical = original.values.logical
    source = turned.isEmpty ? original.values : try TransposedSource(original.values, turned)
  }

  /// The dtype as safetensors names it, or `NF4`, `FP4`.
  package func typeName(_ index: Int) -> String {
    switch logical.items[index] {
    case .plain(let stored): checkpoint.typeName(of: stored)
    case .packed(let weight): weight.typeName
    }
  }

  /// Reads values of a logical tensor.
  package func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    do throws(Failure) {
      try source.read(index, at: offset, into: &destination)
    } catch { throw Self.located(error, path) }
  }

  /// Reads what is physically there.
  func readStored(_ stored: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    do throws(Failure) {
      try checkpoint.read(stored, at: offset, into: &destination)
    } catch { throw Self.located(error, path) }
  }

  /// - Throws: `io` when a file is no longer what it was when it was opened.
  package func checkUnchanged() throws(Failure) {
    do throws(Failure) { try checkpoint.checkUnchanged() } catch { throw Self.located(error, path) }
  }

  package var warnings: [Warning] { checkpoint.warnings.map { "\(list: [path]): \($0)" } }

  /// Whether both are made of the same files.
  package func isSame(as other: ComparedCheckpoint) -> Bool {
    checkpoint.identities.elementsEqual(other.checkpoint.identities) { $0.isSameFile(as: $1) }
  }

  private static func located(_ failure: Failure, _ path: String) -> Failure {
    var copy = failure
    let isInside = failure.file != nil && failure.file != path && InputDirectory.exists(at: path)
    copy.file = isInside ? "\(path)\(path.hasSuffix("/") ? "" : "/")\(failure.file ?? "")" : path
    return copy
  }
}
