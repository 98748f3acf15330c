public import Bytes
import JSON
public import Tensors

/// The header of a safetensors file: an 8-byte little-endian length, then that many bytes of JSON. See `FORMAT.md`.
///
/// A header that exists is valid: names differ by their bytes, the tensors fill the data section from
/// its first byte to the file's last, without a hole and without overlap.
public struct SafetensorsHeader: Sendable {
  /// Bytes of JSON. The limit of the reference implementation.
  public static let lengthLimit = 100_000_000
  public static let tensorLimit = 1_000_000
  public static let rankLimit = 64
  /// Bytes of the length that stands before the JSON.
  static let prefixLength = 8

  /// The tensors in the order of their data.
  public let tensors: [TensorInfo]
  /// The pairs of `__metadata__` in the order written.
  public let metadata: [(key: String, value: String)]
  /// Offset of the first data byte in the file.
  public let dataStart: Int
  /// Findings that are worth knowing and no errors.
  public let warnings: [Warning]

  /// First byte of each tensor, counted from `dataStart`.
  private let begins: [Int]
  /// The tensors' names in byte order.
  let order: KeyOrder

  /// Parses and validates the JSON of a header.
  ///
  /// - Parameters:
  ///   - json: the bytes between the length and the data.
  ///   - fileSize: bytes of the whole file.
  /// - Throws: `malformed`, naming the tensor and the offset in the file.
  public init(parsing json: [UInt8], fileSize: Int) throws(Failure) {
    var parser = HeaderParser(json, baseOffset: Self.prefixLength)
    try parser.parse()
    let start = Self.prefixLength + json.count
    parser.sortByData()
    let end = try parser.dataEnd()
    let dataSize = fileSize - start
    guard end == dataSize else {
      throw end > dataSize
        ? Failure(
          .malformed, "data is cut short: the tensors need \(end) bytes, the file has \(dataSize) after the header",
          tensor: parser.firstTensor(endingAfter: dataSize), offset: fileSize)
        : Failure(
          .malformed, "found \(counted(dataSize - end, "byte")) after the last tensor, allowed are none",
          offset: start + end)
    }
    tensors = parser.tensors
    begins = parser.begins
    metadata = parser.metadata
    order = parser.order
    warnings = parser.warnings
    dataStart = start
  }

  /// Where a tensor's bytes are, counted from the file's first byte.
  public func range(of index: Int) -> Range<Int> {
    let start = dataStart + begins[index]
    return start..<(start + tensors[index].byteCount)
  }

  /// The position in `tensors` of a name.
  public func index(of name: TensorName) -> Int? {
    order.position(of: name.string) { tensors[$0].name.string }
  }

  private static func declaredLength(_ beginning: [UInt8]) -> UInt64 {
    beginning.prefix(prefixLength).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
  }

  /// Whether the length is possible and JSON may follow it.
  static func isLikely(_ beginning: [UInt8], fileSize: Int) -> Bool {
    guard beginning.count > prefixLength else { return false }
    let declared = declaredLength(beginning)
    let looksLikeJSON = [0x7B, 0x20, 0x09, 0x0A, 0x0D].contains(beginning[prefixLength])
    return looksLikeJSON && declared <= UInt64(lengthLimit) && Int(declared) <= fileSize - prefixLength
  }

  /// Bytes of JSON, from the first bytes of a file.
  ///
  /// - Parameter beginning: as many as tell what a file is, or all when there are fewer.
  /// - Throws: `unsupported` when the file is of another kind that is known by its first bytes;
  ///   `malformed` when the length is not possible.
  static func length(from beginning: [UInt8], fileSize: Int) throws(Failure) -> Int {
    if !isLikely(beginning, fileSize: fileSize), let failure = OtherFormat.recognized(by: beginning) { throw failure }
    guard beginning.count >= prefixLength else {
      throw Failure(
        .malformed, "file has \(counted(fileSize, "byte")), a safetensors file has at least \(prefixLength + 2)",
        offset: fileSize)
    }
    let declared = declaredLength(beginning)
    guard declared <= UInt64(lengthLimit) else {
      throw Failure(
        .malformed, "header length is \(declared) bytes, allowed are \(min(lengthLimit, fileSize - prefixLength))",
        offset: 0)
    }
    guard Int(declared) <= fileSize - prefixLength else {
      throw Failure(
        .malformed, "header length is \(declared) bytes, only \(fileSize - prefixLength) follow it", offset: 0)
    }
    guard declared >= 2 else {
      throw Failure(.malformed, "header length is \(declared) bytes, the shortest header '{}' has 2", offset: 0)
    }
    return Int(declared)
  }

  /// Reads and validates the header of an open file. No data byte is read.
  public init(of file: InputFile) throws(Failure) {
    do throws(Failure) {
      let beginning = try file.bytes(in: 0..<min(FileContent.length, file.size))
      let length = try Self.length(from: beginning, fileSize: file.size)
      let json = try file.bytes(in: Self.prefixLength..<(Self.prefixLength + length))
      try self.init(parsing: json, fileSize: file.size)
    } catch { throw error.located(file: file.name) }
  }

  /// Validates a whole file held in memory.
  public init(ofFile bytes: [UInt8]) throws(Failure) {
    let length = try Self.length(from: Array(bytes.prefix(FileContent.length)), fileSize: bytes.count)
    let json = Array(bytes[Self.prefixLength..<(Self.prefixLength + length)])
    try self.init(parsing: json, fileSize: bytes.count)
  }
}
