import Adapters
import Bytes
import Tensors

extension ModelSource {
  /// Whether its tensors are those of an adapter of PEFT, not of a model.
  var isAdapter: Bool {
    checkpoint.fileNames == [Adapter.weightsName]
      || checkpoint.tensors.first?.name.string.hasPrefix("base_model.model.") == true
  }

  /// - Parameter reason: why a model is wanted, and the way out.
  /// - Throws: `unsupported` for an adapter.
  func refuseAdapter(_ reason: String) throws(Failure) {
    if isAdapter { throw Failure(.unsupported, "is an adapter, not a model: \(reason)", file: checkpoint.path) }
  }
}
