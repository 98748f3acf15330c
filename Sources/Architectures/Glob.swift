/// A pattern over bytes: `*` stands for any run of bytes, dots included, `?` for any one byte.
///
/// Matching takes time linear in the text for each `*`, never exponential: only the last `*` is ever
/// reconsidered.
public struct Glob: Sendable, Equatable {
  public let text: String
  private let pattern: [UInt8]

  public init(_ text: String) {
    self.text = text
    pattern = Array(text.utf8)
  }

  public static func == (left: Glob, right: Glob) -> Bool { left.pattern == right.pattern }

  public func matches(_ text: String) -> Bool { matches(Array(text.utf8)) }

  func matches(_ text: [UInt8]) -> Bool {
    let star = UInt8(ascii: "*")
    var (at, here) = (0, 0)
    /// Where the last `*` stands, and where the text it has swallowed ends.
    var retry: (at: Int, here: Int)?
    while here < text.count {
      if at < pattern.count, pattern[at] == star {
        retry = (at, here)
        at += 1
      } else if at < pattern.count, pattern[at] == UInt8(ascii: "?") || pattern[at] == text[here] {
        at += 1
        here += 1
      } else if let last = retry {
        retry = (last.at, last.here + 1)
        (at, here) = (last.at + 1, last.here + 1)
      } else {
        return false
      }
    }
    return pattern[at...].allSatisfy { $0 == star }
  }
}

/// What the user wants left in 16 bits besides what transformers leaves.
public enum Keep: Sendable, Equatable {
  /// Module paths (`model.layers.*.mlp.down_proj`), as the checkpoint or as the model names them.
  case glob(Glob)
  /// Vision and audio towers, projectors, routers and heads of multi-modal models.
  case towers

  /// `towers`, or a glob.
  public init(_ text: String) { self = text == "towers" ? .towers : .glob(Glob(text)) }

  /// Modules left alone by `towers`: the words that multi-modal fine-tuning commonly skips. One matches as
  /// a whole component of the path, or as several.
  static let towerWords = [
    "lm_head", "multi_modal_projector", "merger", "modality_projection", "router", "mlp.gate",
    "block_sparse_moe.gate", "mamba", "audio_tower", "vision_tower", "vision_embedder", "embed_vision",
    "embed_audio", "score", "classifier", "qa_outputs",
  ]
}
