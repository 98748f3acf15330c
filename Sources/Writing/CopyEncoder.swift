package import Bytes
import Checkpoints
import PackedWeights
import Quantization
package import Tensors

/// Stores a tensor's bytes as they are.
package struct CopyEncoder: TensorEncoder {
  /// "quantized" or "merged", for the error about a value that is not finite; nil when any value may be copied.
  package var fate: String?

  package init(fate: String? = nil) {
    self.fate = fate
  }

  package var keepsBytes: Bool { true }

  package func outputs(for weight: TensorInfo) -> [StoredTensor] { [StoredTensor(weight)] }

  package func encode(_ piece: Piece, from input: PieceInput, into buffer: PieceBuffer) throws(Failure) {
    var output = buffer.makeOutput(piece.range.count)
    try input.read(into: &output)
    if let fate { try checkFinite(output.bytes, piece, fate) }
  }

  private func checkFinite(_ values: RawSpan, _ piece: Piece, _ fate: String) throws(Failure) {
    guard let type = FloatType(piece.work.info.type) else { return }
    var statistics = ValueStatistics()
    statistics.add(values, as: type)
    if statistics.finite == statistics.count { return }
    // Rare enough to look for it one by one.
    for index in 0..<statistics.count {
      var value = ScratchBuffer(byteCount: 4)
      var room = value.mutableBytes
      let one = values.extracting(index * type.byteCount..<(index + 1) * type.byteCount)
      // Nothing is too large for f32.
      try? convert(one, from: type, to: .f32, into: &room)
      let wide = value.floats[0]
      if !wide.isFinite { throw .notFinite(wide, at: piece.elements.lowerBound + index, piece, fate) }
    }
  }
}

extension Failure {
  /// - Parameter fate: "quantized", "merged".
  package static func notFinite(_ value: Float, at index: Int, _ piece: Piece, _ fate: String) -> Failure {
    Failure(
      .malformed, "element \(index) is \(value), a model to be \(fate) must be finite",
      tensor: piece.work.info.name.string)
  }
}
