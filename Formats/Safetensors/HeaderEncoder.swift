public import Bytes
import JSON
public import Tensors

/// The bytes that stand before the data of a file: length, JSON, and spaces up to the data.
enum HeaderEncoder {
  /// The data section begins on a page, so that a mapped tensor can be handed on as it is.
  static let dataAlignment = 4096

  /// - Parameters:
  ///   - tensors: in the order of their data, which follows without a hole.
  ///   - metadata: written first; nothing is written when it is empty.
  /// - Throws: `malformed` when a name cannot be written or the sizes overflow, `unsupported` when the
  ///   header would be longer than readers accept.
  static func encode(
    _ tensors: [TensorInfo], metadata: [(key: String, value: String)]
  ) throws(Failure) -> [UInt8] {
    guard tensors.count <= SafetensorsHeader.tensorLimit else {
      throw Failure(
        .unsupported,
        "\(tensors.count) tensors in one file, allowed are \(SafetensorsHeader.tensorLimit); "
          + "use smaller shards")
    }
    var json = "{"
    if !metadata.isEmpty { append(metadata, to: &json) }
    var begin = 0
    for tensor in tensors {
      if tensor.name == "__metadata__" {
        throw Failure(.malformed, "this name is reserved in safetensors files", tensor: tensor.name.string)
      }
      let (end, overflowed) = begin.addingReportingOverflow(tensor.byteCount)
      if overflowed { throw Failure(.malformed, "the file's size overflows", tensor: tensor.name.string) }
      if json.utf8.count > 1 { json += "," }
      tensor.name.string.appendJSON(to: &json)
      json += ":{\"dtype\":\"\(tensor.type.name)\",\"shape\":["
      json += tensor.shape.map(String.init).joined(separator: ",")
      json += "],\"data_offsets\":[\(begin),\(end)]}"
      begin = end
    }
    json += "}"
    return try framed(json)
  }

  private static func append(_ metadata: [(key: String, value: String)], to json: inout String) {
    json += "\"__metadata__\":{"
    for (index, pair) in metadata.enumerated() {
      if index > 0 { json += "," }
      pair.key.appendJSON(to: &json)
      json += ":"
      pair.value.appendJSON(to: &json)
    }
    json += "}"
  }

  private static func framed(_ json: String) throws(Failure) -> [UInt8] {
    let used = SafetensorsHeader.prefixLength + json.utf8.count
    let pages = (used + dataAlignment - 1) / dataAlignment
    let length = pages * dataAlignment - SafetensorsHeader.prefixLength
    guard length <= SafetensorsHeader.lengthLimit else {
      throw Failure(
        .unsupported,
        "the header would have \(length) bytes, allowed are \(SafetensorsHeader.lengthLimit); "
          + "use smaller shards")
    }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(pages * dataAlignment)
    for shift in 0..<SafetensorsHeader.prefixLength { bytes.append(UInt8(truncatingIfNeeded: length >> (8 * shift))) }
    bytes.append(contentsOf: json.utf8)
    bytes.append(contentsOf: repeatElement(UInt8(ascii: " "), count: pages * dataAlignment - used))
    return bytes
  }
}

extension SafetensorsHeader {
  /// The bytes that stand before the data of a file: length, JSON, and spaces up to a multiple of 4096.
  ///
  /// - Parameters:
  ///   - tensors: in the order of their data, which follows without a hole.
  ///   - metadata: written first; nothing is written when it is empty.
  /// - Throws: `malformed` when a name cannot be written or the sizes overflow, `unsupported` when the
  ///   header would be longer than readers accept.
  public static func encode(
    _ tensors: [TensorInfo], metadata: [(key: String, value: String)]
  ) throws(Failure) -> [UInt8] {
    try HeaderEncoder.encode(tensors, metadata: metadata)
  }
}
