/// Which stored tensors of a checkpoint the bytes of a tensor come from.
package enum StoredOrigin: Sendable, Equatable {
  /// The bytes are those of this stored tensor, unchanged.
  case stored(Int)
  /// Computed piece by piece from this one, whose bytes the source hands on as it reads them.
  case traced(Int)
  /// Computed from these.
  case derived([Int])

  /// The one stored tensor that the bytes are, or are computed from as they are read.
  package var single: Int? {
    switch self {
    case .stored(let index), .traced(let index): index
    case .derived: nil
    }
  }
}
