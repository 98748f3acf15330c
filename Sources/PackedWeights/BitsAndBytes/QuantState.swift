package import Bytes
import JSON
package import Quantization

/// The JSON that bitsandbytes keeps beside each 4-bit weight (`QuantState.as_dict`).
package struct QuantState: Sendable, Equatable {
  package var code: FourBitCode
  package var blockSize: Int
  /// The dtype of the dequantized weight.
  package var type: FloatType
  package var shape: [Int]
  /// Present with double quantization: the mean that was subtracted from every absmax.
  package var nestedOffset: Float?

  package init(code: FourBitCode, blockSize: Int, type: FloatType, shape: [Int], nestedOffset: Float? = nil) {
    self.code = code
    self.blockSize = blockSize
    self.type = type
    self.shape = shape
    self.nestedOffset = nestedOffset
  }

  /// The text that `json.dumps` would give, keys in bitsandbytes' order.
  package var text: String { text(offset: nestedOffset.flatMap { JSONNumber(Double($0)) }) }

  private func text(offset: JSONNumber?) -> String {
    var object: JSONObject = [
      "quant_type": .string(code.rawValue), "blocksize": .number(blockSize), "dtype": .string(type.torchName),
      "shape": .array(shape.map { .number($0) }),
    ]
    if let offset {
      object["nested_blocksize"] = .number(DoubleQuantization.blockSize)
      object["nested_dtype"] = "float32"
      object["nested_offset"] = .number(offset)
    }
    return JSONValue.object(object).text(.line)
  }

  /// Bytes that hold the text whatever the offset turns out to be: plans must not depend on data.
  /// A finite float printed as a double takes at most 24 characters.
  package var reservedByteCount: Int {
    text(offset: nestedOffset == nil ? nil : JSONNumber(0)).utf8.count + (nestedOffset == nil ? 0 : 24 - 1)
  }
}

extension QuantState {
  /// - Throws: `malformed` for a key that bitsandbytes does not know, a missing key, or a value of the
  ///   wrong kind. Trailing spaces are ours and allowed.
  package init(parsing bytes: [UInt8]) throws(Failure) {
    let object = try JSONValue(parsing: bytes)
    guard let members = object.object else { throw Failure(.malformed, "the quant_state is not a JSON object") }
    let known: Set = [
      "quant_type", "blocksize", "dtype", "shape", "nested_blocksize", "nested_dtype", "nested_offset",
    ]
    for key in members.keys where !known.contains(key) {
      throw Failure(.malformed, "the quant_state has the key '\(key)', which bitsandbytes refuses")
    }
    func need<T>(_ key: String, _ value: T?) throws(Failure) -> T {
      guard let value else { throw Failure(.malformed, "the quant_state has no valid '\(key)'") }
      return value
    }
    code = try need("quant_type", object["quant_type"]?.string.flatMap(FourBitCode.init(rawValue:)))
    blockSize = try need("blocksize", object["blocksize"]?.int)
    guard FourBitFormat(code: code, blockSize: blockSize) != nil else {
      throw Failure(.malformed, "the quant_state has blocksize \(blockSize), allowed are powers of two from 32 to 4096")
    }
    type = try need("dtype", object["dtype"]?.string.flatMap(FloatType.init(torchName:)))
    var dimensions: [Int] = []
    for item in try need("shape", object["shape"]?.array) {
      dimensions.append(try need("shape", item.int.flatMap { $0 >= 0 ? $0 : nil }))
    }
    shape = dimensions
    nestedOffset = nil
    if object["nested_offset"] != nil || object["nested_blocksize"] != nil {
      let blocks = try need("nested_blocksize", object["nested_blocksize"]?.int)
      guard blocks == DoubleQuantization.blockSize else {
        throw Failure(.malformed, "the quant_state has nested_blocksize \(blocks), bitsandbytes computes only with 256")
      }
      guard object["nested_dtype"]?.string == "float32" else {
        throw Failure(.malformed, "the quant_state's nested_dtype is not float32")
      }
      let offset = Float(try need("nested_offset", object["nested_offset"]?.double))
      guard offset.isFinite else { throw Failure(.malformed, "the quant_state's nested_offset is not finite") }
      nestedOffset = offset
    }
  }
}
