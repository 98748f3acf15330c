public import Bytes
import JSON

extension SafetensorsHeader {
  /// The JSON of a header with other metadata, every other byte as it is; without the spaces at its end.
  ///
  /// - Parameter json: of a valid header.
  static func replacingMetadata(
    in json: [UInt8], by metadata: [(key: String, value: String)]
  ) throws(Failure) -> [UInt8] {
    var reader = JSONReader(json)
    var place: Range<Int>?
    var first: Int?
    try reader.enterObject()
    while let (key, offset) = try reader.nextMember() {
      first = first ?? offset
      _ = try reader.nextKind()
      let start = reader.offset
      try reader.skipValue()
      if key.utf8.elementsEqual("__metadata__".utf8) { place = start..<reader.offset }
    }
    let end = reader.offset
    var writer = JSONWriter()
    writer.value(metadata)
    let object = writer.bytes
    var result: [UInt8] = []
    if let place {
      result += json[..<place.lowerBound]
      result += object
      result += json[place.upperBound..<end]
    } else if let first {
      result += json[..<first]
      result += "\"__metadata__\":".utf8
      result += object
      result.append(UInt8(ascii: ","))
      result += json[first..<end]
    } else {
      result += "{\"__metadata__\":".utf8
      result += object
      result.append(UInt8(ascii: "}"))
    }
    return result
  }

  /// Everything that stands before the data of a file, with other metadata, padded with spaces: as long as it was where
  /// that is enough, else to the next page or multiple of 8 bytes, whichever the data began at before.
  ///
  /// - Parameter file: that this is the header of.
  public func encoded(in file: InputFile, metadata: [(key: String, value: String)]) throws(Failure) -> [UInt8] {
    let prefix = Self.prefixLength
    let json = try Self.replacingMetadata(in: try file.bytes(in: prefix..<dataStart), by: metadata)
    var length = dataStart - prefix
    if json.count > length {
      let alignment = dataStart % HeaderEncoder.dataAlignment == 0 ? HeaderEncoder.dataAlignment : 8
      length = (prefix + json.count + alignment - 1) / alignment * alignment - prefix
    }
    guard length <= Self.lengthLimit else {
      throw Failure(
        .unsupported, "the header would have \(length) bytes, allowed are \(Self.lengthLimit)", file: file.name)
    }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(prefix + length)
    for shift in 0..<prefix { bytes.append(UInt8(truncatingIfNeeded: length >> (8 * shift))) }
    bytes += json
    bytes += repeatElement(UInt8(ascii: " "), count: length - json.count)
    return bytes
  }
}
