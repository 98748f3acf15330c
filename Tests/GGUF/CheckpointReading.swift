import GGUF

extension GGUFCheckpoint {
  /// Fills an array.
  func read(_ index: Int, at offset: Int, into bytes: inout [UInt8]) throws {
    var span = bytes.mutableSpan
    var room = span.mutableBytes
    try read(index, at: offset, into: &room)
  }
}
