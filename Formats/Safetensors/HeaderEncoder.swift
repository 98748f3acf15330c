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
  ///   - room: bytes that were kept for the header, which is filled up to them; nil for as many as it needs.
  /// - Throws: `malformed` when a name cannot be written or the sizes overflow, `unsupported` when the
  ///   header would be longer than readers accept.
  static func encode(
    _ tensors: [TensorInfo], metadata: [(key: String, value: String)], room: Int? = nil
  ) throws(Failure) -> [UInt8] {
    guard tensors.count <= SafetensorsHeader.tensorLimit else {
      throw Failure(
        .unsupported,
        "\(tensors.count) tensors in one file, allowed are \(SafetensorsHeader.tensorLimit); "
          + "use smaller shards")
    }
    var json = JSONWriter()
    json.beginObject(.compact)
    if !metadata.isEmpty {
      json.key("__metadata__")
      json.value(metadata)
    }
    var begin = 0
    for tensor in tensors {
      if tensor.name == "__metadata__" {
        throw Failure(.malformed, "this name is reserved in safetensors files", tensor: tensor.name.string)
      }
      let (end, overflowed) = begin.addingReportingOverflow(tensor.byteCount)
      if overflowed { throw Failure(.malformed, "the file's size overflows", tensor: tensor.name.string) }
      json.key(tensor.name.string)
      json.beginObject(.compact)
      json.member("dtype", tensor.type.name)
      json.member("shape", tensor.shape)
      json.member("data_offsets", [begin, end])
      json.end()
      begin = end
    }
    json.end()
    return try framed(json.bytes, room)
  }

  private static func framed(_ json: [UInt8], _ room: Int?) throws(Failure) -> [UInt8] {
    let used = SafetensorsHeader.prefixLength + json.count
    guard used <= room ?? .max else {
      throw Failure(.internal, "the header has \(used) bytes, more than were kept for it")
    }
    let pages = ((room ?? used) + dataAlignment - 1) / dataAlignment
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
    bytes += json
    bytes.append(contentsOf: repeatElement(UInt8(ascii: " "), count: pages * dataAlignment - used))
    return bytes
  }
}

extension JSONWriter {
  /// Metadata of a header.
  mutating func value(_ metadata: [(key: String, value: String)]) {
    beginObject(.compact)
    for (key, value) in metadata { member(key, value) }
    end()
  }
}

extension SafetensorsHeader {
  /// The bytes that stand before the data of a file: length, JSON, and spaces up to a multiple of 4096.
  ///
  /// - Parameters:
  ///   - tensors: in the order of their data, which follows without a hole.
  ///   - metadata: written first; nothing is written when it is empty.
  ///   - room: bytes that were kept for the header, which is filled up to them; nil for as many as it needs.
  /// - Throws: `malformed` when a name cannot be written or the sizes overflow, `unsupported` when the
  ///   header would be longer than readers accept.
  public static func encode(
    _ tensors: [TensorInfo], metadata: [(key: String, value: String)], room: Int? = nil
  ) throws(Failure) -> [UInt8] {
    try HeaderEncoder.encode(tensors, metadata: metadata, room: room)
  }
}
