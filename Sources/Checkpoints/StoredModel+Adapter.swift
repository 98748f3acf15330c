package import Adapters
package import Bytes
import Tensors

extension StoredCheckpoint {
  /// Whether its tensors are those of an adapter of PEFT, not of a model.
  package var isAdapter: Bool {
    [[Adapter.weightsName], [Adapter.pickleName]].contains(fileNames)
      || tensors.first?.name.string.hasPrefix("base_model.model.") == true
  }
}

extension Adapter {
  /// Opens a directory of PEFT's or mlx-lm's.
  ///
  /// - Throws: what `init(path:)` throws; of a run's directory without one, which of its checkpoints is the newest.
  package static func open(_ path: String) throws(Failure) -> Adapter {
    if InputDirectory.exists(at: path), try CheckpointFormat.detect(path) == .mlxAdapterDirectory {
      return try openMLX(path)
    }
    do throws(Failure) { return try Adapter(path: path) } catch {
      guard error.code == .missing, let format = try? CheckpointFormat.detect(path) else { throw error }
      if format.isTraining {
        throw Failure(
          .unsupported, "is what a run has saved: 'nibble convert \(path) -o ADAPTER' makes an adapter of it",
          file: path)
      }
      throw RunFolders.failure(at: path) ?? error
    }
  }
}

extension StoredModel {
  /// Whether its tensors are those of an adapter of PEFT, not of a model.
  package var isAdapter: Bool { checkpoint.isAdapter }

  /// - Parameter reason: why a model is wanted, and the way out.
  /// - Throws: `unsupported` for an adapter.
  package func refuseAdapter(_ reason: String) throws(Failure) {
    if isAdapter { throw Failure(.unsupported, "is an adapter, not a model: \(reason)", file: checkpoint.path) }
  }
}
