/// How the bytes of one tensor are cut into pieces that have digests of their own: who reads a part of the
/// tensor checks that part, not the rest.
public struct PieceLayout: Hashable, Sendable {
  /// Bytes of the whole tensor.
  public let byteCount: Int
  /// Bytes of every piece but the last, which may be shorter; above 0.
  public let pieceByteCount: Int

  /// Bytes up to which a tensor is one piece. Digests of smaller ones would take more room than they save
  /// time: most tensors of a model are this small, and nearly all of its bytes are in the others.
  public static let undividedByteCount = 1 << 20
  /// Bytes of the smallest piece.
  public static let leastPieceByteCount = 1 << 18
  /// Bounds what one tensor takes in a manifest, 2 KiB, however large it is.
  public static let pieceLimit = 128

  /// The layout that Nibble writes: the smallest power of two of bytes that gives at most `pieceLimit` pieces.
  ///
  /// - Returns: nil for a tensor that is not divided; its own digest is that of its one piece.
  public init?(byteCount: Int) {
    guard byteCount > Self.undividedByteCount else { return nil }
    var layout = PieceLayout(byteCount: byteCount, of: Self.leastPieceByteCount)
    // Ends before it overflows: 2^63 bytes are 128 pieces of 2^56.
    while layout.count > Self.pieceLimit { layout = PieceLayout(byteCount: byteCount, of: 2 * layout.pieceByteCount) }
    self = layout
  }

  /// Any layout; nil for pieces without bytes or a tensor of fewer than 0.
  public init?(byteCount: Int, pieceByteCount: Int) {
    guard byteCount >= 0, pieceByteCount > 0 else { return nil }
    self.init(byteCount: byteCount, of: pieceByteCount)
  }

  private init(byteCount: Int, of pieceByteCount: Int) {
    self.byteCount = byteCount
    self.pieceByteCount = pieceByteCount
  }

  /// The number of pieces.
  public var count: Int { byteCount / pieceByteCount + (byteCount % pieceByteCount == 0 ? 0 : 1) }

  /// The bytes of the tensor that `pieces`, which are among those of the layout, are made of.
  public func bytes(of pieces: ClosedRange<Int>) -> Range<Int> {
    precondition(pieces.lowerBound >= 0 && pieces.upperBound < count, "a piece that there is not")
    let last = pieces.upperBound * pieceByteCount
    return pieces.lowerBound * pieceByteCount..<last + min(pieceByteCount, byteCount - last)
  }
}

/// The digests of a tensor's pieces.
public struct PieceDigests: Hashable, Sendable {
  public let layout: PieceLayout
  /// The digests of the pieces, front to back.
  public let digests: [XXH3Digest]

  /// - Precondition: one digest for each piece of the layout.
  init(_ layout: PieceLayout, _ digests: [XXH3Digest]) {
    precondition(digests.count == layout.count, "a digest for each piece")
    self.layout = layout
    self.digests = digests
  }

  /// Parses the digests of all pieces, 16 hexadecimal digits of either case each, one after the other.
  ///
  /// - Returns: nil for anything else, be it one digit too many.
  public init?(_ layout: PieceLayout, hexadecimal text: String) {
    var digits = Array(text.utf8)[...]
    // Divided, not multiplied: the count may be anything up to `Int.max`.
    guard digits.count % 16 == 0, digits.count / 16 == layout.count else { return nil }
    var digests: [XXH3Digest] = []
    digests.reserveCapacity(layout.count)
    while !digits.isEmpty {
      guard let value = digits.prefix(16).hexadecimalValue else { return nil }
      digests.append(XXH3Digest(value: value))
      digits = digits.dropFirst(16)
    }
    self.init(layout, digests)
  }

  /// 16 lower-case hexadecimal digits for each piece, one after the other.
  public var hexadecimal: String {
    digests.reduce(into: "") { $0 += $1.hexadecimal }
  }
}
