package import Bytes
package import JSON
package import ModelFamilies
package import Tensors

/// How a method of quantization stores weights, each in several tensors: what one checkpoint's configuration says of
/// it. A method is a layout, which finds the weights, and a `PackedWeight`, which decodes one.
package protocol PackedLayout: Sendable {
  /// - Returns: nil where the configuration does not speak of the method.
  /// - Throws: `unsupported` for a variant that is not known here, `malformed` for settings that are none.
  init?(_ config: JSONValue?, of checkpoint: any StoredTensors) throws(Failure)

  /// What the method is called, such as `MLX`.
  var name: String { get }
  /// Files beside the weights that say how these are quantized.
  var settingsFiles: [String] { get }

  /// - Returns: nil for a tensor that is no packed weight, by whose name a weight goes.
  /// - Throws: `malformed` where parts are missing or do not fit each other.
  func weight(_ index: Int, in checkpoint: any StoredTensors) throws(Failure) -> (any PackedWeight)?

  /// What a tensor is that is part of no weight.
  func remainder(_ index: Int, in checkpoint: any StoredTensors) -> PackedRemainder

  /// The tensors of transformers by those that are stored.
  func originals(of tensors: [TensorInfo], config: JSONValue) throws(Failure) -> [PlannedWeight]

  /// `config.json` without what it says of the method.
  func original(_ config: JSONValue) -> JSONValue
}

/// What a tensor of a quantized checkpoint is that is part of no packed weight.
package enum PackedRemainder: Sendable, Equatable {
  /// A tensor of the model.
  case plain
  /// Of use only to who computes in few bits: a scale of activations.
  case leftOut
  /// Part of a weight that is not there.
  case orphan
}

extension PackedLayout {
  package var settingsFiles: [String] { [] }

  package func remainder(_ index: Int, in checkpoint: any StoredTensors) -> PackedRemainder { .plain }

  package func originals(of tensors: [TensorInfo], config: JSONValue) -> [PlannedWeight] {
    tensors.enumerated().map { PlannedWeight(name: $1.name, shape: $1.shape, source: .stored($0)) }
  }

  package func original(_ config: JSONValue) -> JSONValue { QuantizationSettings.removed(from: config) }
}

/// The methods that are read; the first that a configuration speaks of is the checkpoint's.
package let packedLayouts: [any PackedLayout.Type] = [
  MLXLayout.self, AutoRoundLayout.self, FP8Layout.self, MXFP4Layout.self, CompressedTensorsLayout.self,
  GPTQLayout.self, AWQLayout.self, ModelOptLayout.self, Int8Layout.self, HQQLayout.self, TorchAOLayout.self,
]
