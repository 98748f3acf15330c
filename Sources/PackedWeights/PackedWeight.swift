package import Bytes
package import Quantization
package import Tensors

/// A weight that is stored in several tensors, and the decoder that makes its values of them.
///
/// A scheme is one decoder, beside the encoder that writes what it reads.
package protocol PackedWeight: Sendable {
  /// The weight as the model sees it: its name, the dtype that it was quantized from, its shape.
  var info: TensorInfo { get }
  /// Positions of its parts among the stored tensors, the packed values first.
  var parts: [Int] { get }
  /// Its dtype in lists, such as `NF4`.
  var typeName: String { get }
  /// The method that packed the weight, such as `bitsandbytes-nf4`.
  var scheme: String { get }

  /// Computes some of the values.
  ///
  /// - Parameters:
  ///   - elements: positions in the weight, counted over its rows.
  ///   - type: of the values.
  ///   - destination: of their size.
  func decode(
    _ elements: Range<Int>, of checkpoint: any StoredTensors, as type: FloatType,
    into destination: inout MutableRawSpan
  ) throws(Failure)
}

extension PackedWeight {
  /// Position of the stored tensor that holds the packed values.
  package var payload: Int { parts[0] }
}
