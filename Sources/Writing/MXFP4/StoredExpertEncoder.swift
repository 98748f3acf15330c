package import Bytes
package import Tensors

/// Stores a stack of experts that is in gpt-oss's MXFP4 already, byte for byte.
package struct StoredExpertEncoder: TensorEncoder {
  private let stored: any TensorSource
  /// Positions of blocks and scales, by the stack's name in the output.
  private let parts: [TensorName: (blocks: Int, scales: Int)]

  /// Values, and bytes of their codes, that share a scale.
  private static let (groupSize, groupBytes) = (32, 16)

  /// - Parameter parts: positions in `stored` of blocks and scales, by the name of the stack that they stand for.
  package init(_ stored: any TensorSource, parts: [TensorName: (blocks: Int, scales: Int)]) {
    self.stored = stored
    self.parts = parts
  }

  package var schemeName: String? { ExpertEncoder.schemeName }

  package func pieceByteCount(for weight: TensorInfo) -> Int { 4 * Piece.byteCount }

  package func outputs(for weight: TensorInfo) throws(Failure) -> [StoredTensor] {
    let (blocks, scales) = try parts(of: weight)
    let groups = weight.elementCount / Self.groupSize
    guard scales.byteCount == groups, blocks.byteCount == groups * Self.groupBytes else {
      throw Failure(.internal, "blocks of another size", tensor: weight.name.string)
    }
    return [
      StoredTensor(try TensorInfo(name: weight.name + "_blocks", type: .u8, shape: blocks.shape)),
      StoredTensor(try TensorInfo(name: weight.name + "_scales", type: .u8, shape: scales.shape)),
    ]
  }

  package func storedByteCount(of weight: TensorInfo) -> Int? {
    parts[weight.name].map { stored.storedByteCount(of: $0.blocks) + stored.storedByteCount(of: $0.scales) }
  }

  package func encode(_ piece: Piece, from input: PieceInput, into buffer: PieceBuffer) throws(Failure) {
    guard let index = parts[piece.work.info.name]?.blocks else { throw Failure(.internal, "no blocks of a stack") }
    let elements = piece.elements
    var output = buffer.makeOutput(elements.count / Self.groupSize * Self.groupBytes)
    try stored.read(index, at: elements.lowerBound / Self.groupSize * Self.groupBytes, into: &output)
  }

  package func finish(_ work: TensorWork, write: (RawSpan) throws(Failure) -> Void) throws(Failure) {
    guard let index = parts[work.info.name]?.scales else { throw Failure(.internal, "no scales of a stack") }
    let scales = try ScratchBuffer(stored, index, at: 0, count: stored.tensors[index].byteCount)
    try write(scales.bytes)
  }

  private func parts(of weight: TensorInfo) throws(Failure) -> (blocks: TensorInfo, scales: TensorInfo) {
    guard let positions = parts[weight.name] else {
      throw Failure(.internal, "no parts of a stack", tensor: weight.name.string)
    }
    return (stored.tensors[positions.blocks], stored.tensors[positions.scales])
  }
}
