package import Bytes
package import GGUF
package import Tensors

/// The type of a stored tensor's values: an element type of safetensors, or a type of ggml, whose values may share
/// blocks.
package enum StoredType: Sendable, Equatable {
  case element(ElementType)
  case ggml(GGMLType)
}

/// One tensor as it is stored: what a container's header says of it.
package struct StoredTensor: Sendable {
  package var name: TensorName
  package var type: StoredType
  package var shape: [Int]
  package var byteCount: Int
  /// Whether fewer bytes may turn out to be needed: the size of a compressed tensor is known when it is written.
  package var isBounded = false

  /// Bytes of which there are at most so many. They are stored as a vector of U8.
  package init(_ name: TensorName, atMost byteCount: Int) {
    self.name = name
    type = .element(.u8)
    shape = [byteCount]
    self.byteCount = byteCount
    isBounded = true
  }

  /// The same with its size known.
  func settled(_ byteCount: Int) throws(Failure) -> StoredTensor {
    guard isBounded, byteCount <= self.byteCount else {
      throw Failure(
        .internal, "\(byteCount) bytes were written, \(self.byteCount) were planned", tensor: name.string)
    }
    var tensor = StoredTensor(name, atMost: byteCount)
    tensor.isBounded = false
    return tensor
  }

  package init(_ info: TensorInfo) {
    name = info.name
    type = .element(info.type)
    shape = info.shape
    byteCount = info.byteCount
  }

  package init(_ tensor: GGUFTensor) {
    name = tensor.name
    type = .ggml(tensor.type)
    shape = tensor.shape
    byteCount = tensor.byteCount
  }
}

/// Turns one weight into the tensors that are stored for it.
///
/// The first of these is written piece by piece, in parallel; the others follow it, when the whole weight has been
/// seen. A scheme is one encoder, beside the decoder that reads what it writes.
package protocol TensorEncoder: Sendable {
  /// The stored tensors of a weight in file order, known before any data. The size of the first may be a bound.
  ///
  /// - Throws: `unsupported` for a weight that the scheme cannot hold.
  func outputs(for weight: TensorInfo) throws(Failure) -> [StoredTensor]

  /// Bytes of the weight's values that one worker takes at a time. What is written does not depend on it.
  func pieceByteCount(for weight: TensorInfo) -> Int

  /// The state that is gathered while the pieces of a weight are encoded, such as block maxima; nil for nothing.
  func makeState(for weight: TensorInfo) -> (any Sendable)?

  /// Encodes one piece of a weight into `buffer.output`.
  ///
  /// - Throws: `malformed` for a value that the scheme cannot hold, with its index.
  func encode(_ piece: Piece, from input: PieceInput, into buffer: PieceBuffer) throws(Failure)

  /// Writes the outputs after the first, one call of `write` for each.
  func finish(
    _ work: TensorWork, write: (RawSpan) throws(Failure) -> Void
  ) throws(Failure)

  /// Whether the stored bytes are those of the source's values.
  var keepsBytes: Bool { get }

  /// The scheme's name where it stores fewer bits, such as `NF4` or `Q4_K`; nil for one that stores floating point.
  var schemeName: String? { get }

  /// Bytes that are read from files for the whole weight, where that is not what the source says.
  func storedByteCount(of weight: TensorInfo) -> Int?
}

extension TensorEncoder {
  package func pieceByteCount(for weight: TensorInfo) -> Int { Piece.byteCount }
  package func makeState(for weight: TensorInfo) -> (any Sendable)? { nil }
  package func finish(_ work: TensorWork, write: (RawSpan) throws(Failure) -> Void) throws(Failure) {}
  package var keepsBytes: Bool { false }
  package var schemeName: String? { nil }
  package func storedByteCount(of weight: TensorInfo) -> Int? { nil }
}
