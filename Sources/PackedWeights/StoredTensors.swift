package import Bytes
package import Tensors

/// Tensors of files, by their names: what a packed weight is found among, and decoded from.
package protocol StoredTensors: TensorSource {
  /// The directory that holds the files; nil when a file was named.
  var directory: InputDirectory? { get }

  /// The position in `tensors` of a name.
  func index(of name: TensorName) -> Int?
  /// The file that holds a tensor and the offset in it of the tensor's first byte.
  func location(of index: Int) -> (file: String, offset: Int)
  /// What the headers of all files say, each text under its key; nothing where a format has none.
  var headerTexts: [(key: String, value: String)] { get }
}

extension StoredTensors {
  /// All bytes of a small tensor.
  package func bytes(of index: Int) throws(Failure) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: tensors[index].byteCount)
    var span = bytes.mutableSpan
    var room = span.mutableRawBytes
    try read(index, at: 0, into: &room)
    return bytes
  }
}
