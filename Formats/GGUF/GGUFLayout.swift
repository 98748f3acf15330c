public import Bytes
import Tensors

/// The files that a model is to be written into: every header, every offset, every size, before any data.
public struct GGUFLayout: Sendable {
  public struct File: Sendable {
    public let name: String
    /// Positions in the tensors given to `init`.
    public let tensors: Range<Int>
    /// Everything that stands before the data, with its padding.
    public let header: [UInt8]
    /// First byte of each of the file's tensors, from the file's first byte.
    public let offsets: [Int]
    /// The file's size in bytes, padding included.
    public let size: Int
  }

  public let files: [File]
  public let alignment: Int

  /// - Parameters:
  ///   - name: of the file; the files of a split get their numbers before its `.gguf`.
  ///   - maxShardBytes: of tensor data in one file; nothing is split when it is enough for all.
  /// - Throws: `malformed` for a name that is too long, twice there, or too large a total.
  public init(
    name: String, metadata: GGUFMetadata, tensors: [GGUFTensor], maxShardBytes: Int = .max
  ) throws(Failure) {
    try Self.check(tensors)
    alignment = try metadata.integer(GGUFHeader.alignmentKey) ?? GGUFHeader.defaultAlignment
    guard alignment > 0, alignment <= GGUFHeader.alignmentLimit, alignment.nonzeroBitCount == 1 else {
      throw Failure(.malformed, "\(GGUFHeader.alignmentKey) is \(alignment), allowed are powers of two")
    }
    var metadata = metadata
    for key in GGUFSplit.keys { metadata[key] = nil }
    let ranges = try Self.ranges(tensors, alignment: alignment, maxShardBytes: maxShardBytes)
    let stem = name.hasSuffix(".gguf") ? String(name.dropLast(5)) : name
    var files: [File] = []
    for (number, range) in ranges.enumerated() {
      var own = number == 0 ? metadata : GGUFMetadata()
      if ranges.count > 1 {
        guard let position = UInt16(exactly: number), let count = UInt16(exactly: ranges.count) else {
          throw Failure(.usage, "would take \(ranges.count) files, GGUF allows \(GGUFSplit.countLimit)")
        }
        // In the order of llama-gguf-split, whose files are the same byte for byte.
        own[GGUFSplit.numberKey] = .uint16(position)
        own[GGUFSplit.tensorCountKey] = .int32(Int32(clamping: tensors.count))
        own[GGUFSplit.countKey] = .uint16(count)
      }
      if number > 0, alignment != GGUFHeader.defaultAlignment {
        own[GGUFHeader.alignmentKey] = .uint32(UInt32(alignment))
      }
      let text = ranges.count == 1 ? name : GGUFFileName(stem: stem, number: number + 1, total: ranges.count).text
      files.append(try Self.file(text, own, tensors, range, alignment))
    }
    self.files = files
  }

  public var byteCount: Int { files.reduce(0) { $0 + $1.size } }

  private static func check(_ tensors: [GGUFTensor]) throws(Failure) {
    for tensor in tensors where tensor.name.byteCount >= GGUFTensor.nameLimit {
      // The format allows 64 bytes, ggml 63: what is written must be read.
      throw Failure(
        .malformed, "the name has \(tensor.name.byteCount) bytes, ggml reads \(GGUFTensor.nameLimit - 1) at most",
        tensor: tensor.name.string)
    }
    let order = KeyOrder(count: tensors.count) { tensors[$0].name.string }
    if let (first, _) = order.firstDuplicate {
      throw Failure(.malformed, "two tensors would have this name", tensor: tensors[first].name.string)
    }
  }

  private static func ranges(
    _ tensors: [GGUFTensor], alignment: Int, maxShardBytes: Int
  ) throws(Failure) -> [Range<Int>] {
    var ranges: [Range<Int>] = []
    var start = 0
    var bytes = 0
    for (index, tensor) in tensors.enumerated() {
      guard let padded = tensor.byteCount.aligned(to: alignment) else { throw tooLarge(tensor) }
      let (sum, overflowed) = bytes.addingReportingOverflow(padded)
      if index > start, overflowed || sum > maxShardBytes {
        ranges.append(start..<index)
        start = index
        bytes = padded
      } else {
        if overflowed { throw tooLarge(tensor) }
        bytes = sum
      }
    }
    return ranges + [start..<tensors.count]
  }

  private static func tooLarge(_ tensor: GGUFTensor) -> Failure {
    Failure(.malformed, "the file would be larger than 63 bits can count", tensor: tensor.name.string)
  }

  private static func file(
    _ name: String, _ metadata: GGUFMetadata, _ tensors: [GGUFTensor], _ range: Range<Int>, _ alignment: Int
  ) throws(Failure) -> File {
    var begins: [Int] = []
    var end = 0
    for tensor in tensors[range] {
      begins.append(end)
      guard let next = (end + tensor.byteCount).aligned(to: alignment) else { throw tooLarge(tensor) }
      end = next
    }
    let header = try encode(metadata, tensors[range], begins, alignment)
    let (size, overflowed) = header.count.addingReportingOverflow(end)
    if overflowed, let last = tensors[range].last { throw tooLarge(last) }
    return File(name: name, tensors: range, header: header, offsets: begins.map { $0 + header.count }, size: size)
  }

  /// Everything that stands before the data, with its padding.
  static func encode(
    _ metadata: GGUFMetadata, _ tensors: ArraySlice<GGUFTensor>, _ begins: [Int], _ alignment: Int, version: UInt32 = 3
  ) throws(Failure) -> [UInt8] {
    var bytes = Array("GGUF".utf8)
    bytes.append(littleEndian: version)
    bytes.append(littleEndian: UInt64(tensors.count))
    bytes.append(littleEndian: UInt64(metadata.pairs.count))
    for (key, value) in metadata.pairs {
      bytes.append(string: Array(key.utf8))
      bytes.append(littleEndian: value.type.rawValue)
      try bytes.append(value)
    }
    for (tensor, begin) in zip(tensors, begins) {
      bytes.append(string: Array(tensor.name.string.utf8))
      bytes.append(littleEndian: UInt32(tensor.shape.count))
      for dimension in tensor.shape.reversed() { bytes.append(littleEndian: UInt64(dimension)) }
      bytes.append(littleEndian: tensor.type.rawValue)
      bytes.append(littleEndian: UInt64(begin))
    }
    let padding = (bytes.count.aligned(to: alignment) ?? bytes.count) - bytes.count
    return bytes + Array(repeating: 0, count: padding)
  }
}

extension [UInt8] {
  fileprivate mutating func append(string: [UInt8]) {
    append(littleEndian: UInt64(string.count))
    self += string
  }

  /// The value as it stands in a file, without its type.
  mutating func append(_ value: GGUFValue) throws(Failure) {
    switch value {
    case .uint8(let value): append(littleEndian: value)
    case .int8(let value): append(littleEndian: value)
    case .uint16(let value): append(littleEndian: value)
    case .int16(let value): append(littleEndian: value)
    case .uint32(let value): append(littleEndian: value)
    case .int32(let value): append(littleEndian: value)
    case .uint64(let value): append(littleEndian: value)
    case .int64(let value): append(littleEndian: value)
    case .float32(let value): append(littleEndian: value.bitPattern)
    case .float64(let value): append(littleEndian: value.bitPattern)
    case .bool(let value): append(littleEndian: UInt8(value ? 1 : 0))
    case .string(let value): append(string: value)
    case .array(let value):
      append(littleEndian: value.elementType.rawValue)
      append(littleEndian: UInt64(value.count))
      self += try value.encodedElements()
    }
  }
}
