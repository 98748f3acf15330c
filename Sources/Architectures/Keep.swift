public import Patterns

/// A choice of weights that the user wants left in 16 bits besides those that transformers leaves.
public enum Keep: Sendable, Equatable {
  /// Module paths (`model.layers.*.mlp.down_proj`), as the checkpoint or as the model names them.
  case glob(Glob)
  /// Vision and audio towers, projectors, routers and heads of multi-modal models.
  case towers

  /// `towers`, or a glob.
  public init(_ text: String) { self = text == "towers" ? .towers : .glob(Glob(text)) }

  /// Modules left alone by `towers`: the words that multi-modal fine-tuning commonly skips. One matches as
  /// a whole component of the path, or as several.
  package static let towerWords = [
    "lm_head", "multi_modal_projector", "merger", "modality_projection", "router", "mlp.gate",
    "block_sparse_moe.gate", "mamba", "audio_tower", "vision_tower", "vision_embedder", "embed_vision",
    "embed_audio", "score", "classifier", "qa_outputs",
  ]
}
