/// Takes the digests of the pieces of one tensor after another from bytes that arrive however they are cut.
public struct PieceHasher: ~Copyable {
  private var hasher = XXH3Hasher()
  private var layout: PieceLayout?
  /// Bytes that are still to come of the piece in hand.
  private var missing = 0
  private var digests: [XXH3Digest] = []

  public init() {}

  /// Starts anew, for a tensor cut that way; nil for one that is not divided.
  public mutating func begin(_ layout: PieceLayout?) {
    self.layout = layout
    missing = layout?.pieceByteCount ?? 0
    digests.removeAll(keepingCapacity: true)
    hasher.reset()
  }

  public mutating func update(_ bytes: RawSpan) {
    guard let layout else { return }
    var rest = bytes
    while rest.byteCount >= missing {
      hasher.update(rest.extracting(first: missing))
      rest = rest.extracting(droppingFirst: missing)
      closePiece(of: layout)
    }
    hasher.update(rest)
    missing -= rest.byteCount
  }

  /// - Returns: nil for a tensor that is not divided.
  /// - Precondition: exactly the layout's bytes have come.
  public mutating func finish() -> PieceDigests? {
    guard let layout else { return nil }
    if missing < layout.pieceByteCount { closePiece(of: layout) }
    return PieceDigests(layout, digests)
  }

  private mutating func closePiece(of layout: PieceLayout) {
    digests.append(hasher.digest)
    hasher.reset()
    missing = layout.pieceByteCount
  }
}
