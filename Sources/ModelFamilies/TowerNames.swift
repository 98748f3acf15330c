import Architectures

/// Names of tensors that belong to vision, audio or speech parts and to what projects their output into a text model.
enum TowerNames {
  private static let prefixes = [
    "mlp", "vit.", "vpm.", "siglip2.", "conformer.", "merger.", "resampler.", "sound_encoder.", "sound_projection.",
    "speech_embeddings.",
  ]
  private static let parts = [
    "visual.", "vision.", "audio.", "talker.", "vision_", "audio_", "token2wav.", "code2wav.", "projector.",
    "pre_mm_projector_norm", "image_newline", "view_seperator", "patch_embed", "patch_embedding", "patch_merger.",
    "patch_merge_mlp.", "model.connector.",
  ].map { Array($0.utf8) }

  static func contains(_ name: String) -> Bool {
    if prefixes.contains(where: { name.utf8.starts(with: $0.utf8) }) { return true }
    let bytes = Array(name.utf8)
    return parts.contains { bytes.firstOccurrence(of: $0) != nil }
  }
}
