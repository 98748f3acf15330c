import Bytes

/// Walks over the bytes of a pickle, which are read in growing pieces: where a pickle ends is known only at its end.
struct PickleCursor {
  private static let firstPiece = 1 << 16

  /// What has been read; offsets in the graph count from its beginning.
  private(set) var bytes: [UInt8] = []
  private(set) var position = 0
  private let source: FileSlice?
  private let limit: Int

  /// - Parameter limit: of the bytes that may be read.
  init(_ source: FileSlice, limit: Int) {
    self.source = source
    self.limit = limit
  }

  init(_ bytes: [UInt8]) {
    self.bytes = bytes
    source = nil
    limit = bytes.count
  }

  /// What is added to a position for its offset in the file.
  var baseOffset: Int { source?.offset ?? 0 }

  /// Bytes from the beginning on, read or not.
  var length: Int { source?.length ?? bytes.count }

  mutating func byte(_ what: StaticString) throws(Failure) -> UInt8 {
    try need(1, what)
    defer { position += 1 }
    return bytes[position]
  }

  mutating func integer<T: FixedWidthInteger & UnsignedInteger>(
    _ type: T.Type, _ what: StaticString
  ) throws(Failure) -> T {
    let width = MemoryLayout<T>.size
    try need(width, what)
    defer { position += width }
    return bytes.little(type, at: position)
  }

  /// Steps over that many bytes.
  ///
  /// - Returns: where they begin.
  mutating func skip(_ count: Int, _ what: StaticString) throws(Failure) -> Int {
    try need(count, what)
    defer { position += count }
    return position
  }

  /// Steps over a line and its end.
  ///
  /// - Returns: where the line begins, and its length.
  mutating func line(limit: Int, _ what: StaticString) throws(Failure) -> (start: Int, count: Int) {
    let start = position
    while try byte(what) != 0x0A {
      guard position - start <= limit else {
        throw Failure(.malformed, "\(what) has more than the \(limit) bytes allowed", offset: baseOffset + start)
      }
    }
    return (start, position - 1 - start)
  }

  private mutating func need(_ count: Int, _ what: StaticString) throws(Failure) {
    if count <= bytes.count - position { return }
    guard count <= length - position else {
      throw Failure(
        .malformed, "the pickle ends inside \(what): \(count) bytes are needed, \(length - position) remain",
        offset: baseOffset + position)
    }
    guard let source else { return }
    guard count <= limit - position else {
      throw Failure(.malformed, "the pickle has more than the \(limit) bytes allowed", offset: baseOffset)
    }
    // As much again as there is: linear in the whole, however long it turns out.
    let piece = max(position + count - bytes.count, bytes.count, Self.firstPiece)
    let end = min(bytes.count + piece, length, max(limit, position + count))
    bytes.append(contentsOf: try source.bytes(in: bytes.count..<end))
  }
}
