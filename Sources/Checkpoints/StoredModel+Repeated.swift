import Architectures
import Bytes
import JSON
import Tensors

extension StoredModel {
  /// Of tensors that share their values the first is the model's, where that is enough for a loader of its class: it
  /// ties the others. Where it is not, each is a tensor of its own.
  init(repeating stored: any StoredCheckpoint) throws(Failure) {
    // No loader ties what is in a layer: there it may be a parameter of its own, or a part of one that is packed.
    let repeated = stored.repeated.filter { !Self.isInLayer(stored.tensors[$0].name) }
    if !repeated.isEmpty {
      let reduced = try StoredModel(ReducedCheckpoint(stored, without: Set(repeated)), dequantizes: true)
      let configuration = reduced.configuration
      if configuration.isKnownClass, (try? reduced.checkContents()) != nil {
        self = reduced
        return
      }
      // The configuration speaks of these alone.
      let embeddings = repeated.filter { reduced.isEmbedding(stored.tensors[$0]) }
      if configuration.tiesEmbeddings == true, !embeddings.isEmpty {
        let fewer = try StoredModel(ReducedCheckpoint(stored, without: Set(embeddings)), dequantizes: true)
        if (try? fewer.checkContents()) != nil {
          self = fewer
          return
        }
      }
    }
    try self.init(stored, dequantizes: true)
  }

  /// Whether a part of the path is a number.
  private static func isInLayer(_ name: TensorName) -> Bool {
    name.string.split(separator: ".").contains { $0.utf8.allSatisfy { (0x30...0x39).contains($0) } }
  }

  /// Whether it has a row for each token.
  private func isEmbedding(_ tensor: TensorInfo) -> Bool {
    let sizes = [config?["vocab_size"], config?["text_config"]?["vocab_size"]].compactMap { $0?.int }
    return tensor.shape.count == 2 && sizes.contains(tensor.shape[0])
  }
}
