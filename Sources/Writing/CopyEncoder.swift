package import Bytes
import Checkpoints
import Quantization
package import Tensors

/// Stores a tensor's bytes as they are.
package struct CopyEncoder: TensorEncoder {
  /// What is to become of a model that must be finite; nil when any value may be copied.
  package var fate: String?

  package init(fate: String? = nil) {
    self.fate = fate
  }

  package var keepsBytes: Bool { true }

  package func outputs(for weight: TensorInfo) -> [StoredTensor] { [StoredTensor(weight)] }

  package func encode(_ piece: Piece, from input: PieceInput, into buffer: PieceBuffer) throws(Failure) {
    try unsafe input.read(into: buffer.makeOutput(piece.range.count))
    if let fate { try unsafe checkFinite(buffer.output, piece, fate) }
  }

  private func checkFinite(_ values: UnsafeRawBufferPointer, _ piece: Piece, _ fate: String) throws(Failure) {
    guard let type = FloatType(piece.work.info.type) else { return }
    var statistics = ValueStatistics()
    unsafe statistics.add(values, as: type)
    if statistics.finite == statistics.count { return }
    // Rare enough to look for it one by one.
    for index in 0..<statistics.count {
      var value: Float = 0
      unsafe withUnsafeMutableBytes(of: &value) { output in
        let one = unsafe UnsafeRawBufferPointer(rebasing: values[index * type.byteCount..<(index + 1) * type.byteCount])
        // Nothing is too large for f32.
        try? unsafe convert(one, from: type, to: .f32, into: output)
      }
      if !value.isFinite { throw .notFinite(value, at: piece.elements.lowerBound + index, piece, fate) }
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
