import Adapters
package import Bytes
import Tensors

extension StoredCheckpoint {
  /// Whether its tensors are those of an adapter of PEFT, not of a model.
  package var isAdapter: Bool {
    [[Adapter.weightsName], [Adapter.pickleName]].contains(fileNames)
      || tensors.first?.name.string.hasPrefix("base_model.model.") == true
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
