/// Assembles safetensors files byte by byte, valid or not, without the code under test.
public struct SafetensorsBuilder: Sendable {
  public struct Tensor: Sendable {
    /// As it stands between the quotes of the JSON.
    public var name: String
    public var dtype: String
    public var shape: [Int]
    public var data: [UInt8]

    public init(_ name: String, _ dtype: String, _ shape: [Int], _ data: [UInt8]) {
      self.name = name
      self.dtype = dtype
      self.shape = shape
      self.data = data
    }
  }

  public var tensors: [Tensor]
  /// Raw JSON of the `__metadata__` value; nil leaves it out.
  public var metadata: String?
  /// Spaces are added until the header length has this remainder modulo 8.
  public var lengthModulo8: Int

  public init(_ tensors: [Tensor], metadata: String? = nil, lengthModulo8: Int = 0) {
    self.tensors = tensors
    self.metadata = metadata
    self.lengthModulo8 = lengthModulo8
  }

  public var json: String {
    var members: [String] = metadata.map { ["\"__metadata__\":\($0)"] } ?? []
    var begin = 0
    for tensor in tensors {
      let end = begin + tensor.data.count
      members.append(Self.member(tensor.name, tensor.dtype, "\(tensor.shape)", "[\(begin),\(end)]"))
      begin = end
    }
    var text = "{" + members.joined(separator: ",") + "}"
    while text.utf8.count % 8 != lengthModulo8 { text += " " }
    return text
  }

  public var bytes: [UInt8] { Self.file(json, tensors.flatMap(\.data)) }

  /// One member of a header object, from raw JSON.
  public static func member(_ name: String, _ dtype: String, _ shape: String, _ offsets: String) -> String {
    "\"\(name)\":{\"dtype\":\"\(dtype)\",\"shape\":\(shape),\"data_offsets\":\(offsets)}"
  }

  /// Length, header, data: `ST(h, d)`.
  public static func file(_ header: String, _ data: [UInt8] = [], length: UInt64? = nil) -> [UInt8] {
    file(Array(header.utf8), data, length: length)
  }

  public static func file(_ header: [UInt8], _ data: [UInt8] = [], length: UInt64? = nil) -> [UInt8] {
    littleEndian(length ?? UInt64(header.count)) + header + data
  }

  public static func littleEndian(_ value: UInt64) -> [UInt8] {
    (0..<8).map { UInt8(truncatingIfNeeded: value >> (8 * UInt64($0))) }
  }

  /// A valid file of many one-byte tensors, whose names look like those of a model.
  public static func many(_ count: Int) -> [UInt8] {
    var json = "{"
    json.reserveCapacity(count * 110)
    for index in 0..<count {
      if index > 0 { json += "," }
      json += member("model.layers.\(index / 8).block.\(index).weight", "U8", "[1]", "[\(index),\(index + 1)]")
    }
    return file(json + "}", [UInt8](repeating: 7, count: count))
  }

  /// Two tensors of different types, metadata, 8-byte aligned: what most twins are.
  public static let small = SafetensorsBuilder(
    [
      Tensor("a.weight", "F32", [2, 2], Array(0..<16)),
      Tensor("b.weight", "BF16", [3], Array(0..<6)),
    ], metadata: "{\"format\":\"pt\"}")
}
