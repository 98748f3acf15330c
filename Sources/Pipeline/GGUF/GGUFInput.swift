import Bytes
import GGUF
import Quantization
import Tensors

/// A model about to be written as GGUF: names, shapes, metadata and values, whatever they come from.
struct GGUFInput {
  /// One tensor for each of `tensors`.
  let source: any TensorSource
  /// As they would be written with nothing quantized.
  let tensors: [GGUFTensor]
  let metadata: GGUFMetadata
  /// Where `source` reads from, when that is GGUF; its tensors are those of `source`, in the same order.
  let stored: GGUFCheckpoint?
  let warnings: [String]
  let path: String
  let identities: [FileIdentity]
  let checkUnchanged: () throws(Failure) -> Void
  /// Whether its weights have been through a quantizer already.
  let isQuantized: Bool

  init(path: String) throws(Failure) {
    try self.init(GGUFValues(path: path))
  }

  init(_ values: GGUFValues) throws(Failure) {
    source = values
    stored = values.checkpoint
    tensors = values.checkpoint.tensors
    metadata = values.checkpoint.metadata
    warnings = values.warnings
    path = values.path
    identities = values.identities
    checkUnchanged = { () throws(Failure) in try values.checkUnchanged() }
    isQuantized = values.checkpoint.tensors.contains { $0.type.blockType != nil }
  }
}
