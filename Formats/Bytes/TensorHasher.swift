/// All digests of one tensor.
public struct TensorDigests: Hashable, Sendable {
  public var whole: XXH3Digest
  /// nil for a tensor that is not divided.
  public var pieces: PieceDigests?
}

/// Takes all digests of one tensor after another, in one pass.
public struct TensorHasher: ~Copyable {
  private var whole = XXH3Hasher()
  private var pieces = PieceHasher()

  public init() {}

  /// Starts anew.
  ///
  /// - Parameter byteCount: of the whole tensor, which decides how it is cut.
  public mutating func begin(byteCount: Int) {
    whole.reset()
    pieces.begin(PieceLayout(byteCount: byteCount))
  }

  public mutating func update(_ bytes: RawSpan) {
    whole.update(bytes)
    pieces.update(bytes)
  }

  /// - Precondition: as many bytes have come as were announced.
  public mutating func finish() -> TensorDigests {
    TensorDigests(whole: whole.digest, pieces: pieces.finish())
  }
}
