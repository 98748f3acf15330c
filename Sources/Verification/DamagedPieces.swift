import Bytes
import Checkpoints
import Tensors

/// Where a tensor whose digest is wrong differs, as far as its pieces tell.
struct DamagedPieces {
  /// Bytes of the tensor, front to back; pieces side by side are one range.
  private(set) var ranges: [Range<Int>] = []
  /// The offset of the tensor's first byte in its file.
  private let offset: Int

  /// The number of ranges that a message names.
  static let shownLimit = 4

  /// Reads the tensor once more.
  ///
  /// - Returns: nil when the manifest does not have its pieces.
  /// - Throws: `io` when the file cannot be read or a signal came.
  init?(of tensor: Manifest.Tensor, in file: InputFile) throws(Failure) {
    guard let expected = tensor.pieces else { return nil }
    offset = tensor.offset
    var buffer = ScratchBuffer(byteCount: DigestCheck.pieceBytes)
    var room = buffer.mutableBytes
    var hasher = PieceHasher()
    hasher.begin(expected.layout)
    var position = 0
    while position < tensor.byteCount {
      try Interruption.check()
      var target = room.part(0..<min(DigestCheck.pieceBytes, tensor.byteCount - position))
      try file.read(at: tensor.offset + position, into: &target)
      hasher.update(target.bytes)
      position += target.byteCount
    }
    guard let found = hasher.finish() else { return nil }
    for (index, pair) in zip(expected.digests, found.digests).enumerated() where pair.0 != pair.1 {
      let bytes = expected.layout.bytes(of: index...index)
      if let last = ranges.last, last.upperBound == bytes.lowerBound {
        ranges[ranges.count - 1] = last.lowerBound..<bytes.upperBound
      } else {
        ranges.append(bytes)
      }
    }
  }

  /// Continues the message about the digest. First and last byte are both part of a range, as in an HTTP `Range`
  /// header, so that those of the file can be asked for again as they stand there.
  var text: String {
    if ranges.isEmpty { return "; read once more, its pieces are as the manifest says" }
    let shown = ranges.prefix(Self.shownLimit)
    let rest = ranges.count - shown.count
    return "; damaged are its bytes \(Self.list(shown, from: 0))"
      + (rest == 0 ? "" : " and \(rest) more \(rest == 1 ? "range" : "ranges")")
      + ", in the file \(Self.list(shown, from: offset))"
  }

  private static func list(_ ranges: ArraySlice<Range<Int>>, from offset: Int) -> String {
    ranges.map { "\(offset + $0.lowerBound)-\(offset + $0.upperBound - 1)" }.joined(separator: ", ")
  }
}
