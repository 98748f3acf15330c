import Bytes
import Tensors

/// Reads a header field by field; every count is compared with the bytes that remain before anything is reserved.
struct GGUFHeaderParser {
  private(set) var version: UInt32 = 0
  private(set) var pairs: [(key: String, value: GGUFValue)] = []
  var tensors: [GGUFTensor] = []
  var begins: [Int] = []
  var order = KeyOrder([])
  private(set) var alignment = GGUFHeader.defaultAlignment
  var dataStart = 0
  var warnings: [Warning] = []
  var cursor: GGUFCursor

  init(_ file: InputFile) { cursor = GGUFCursor(file) }

  mutating func parse() throws(Failure) {
    try parseVersion()
    let tensorCount = try count("tensors", limit: GGUFHeader.tensorLimit, leastBytes: 24)
    let pairCount = try count("metadata pairs", limit: GGUFHeader.metadataLimit, leastBytes: 14)
    // The least that the two need together.
    guard 24 * tensorCount + 14 * pairCount <= cursor.remaining else {
      throw Failure(
        .malformed, "\(tensorCount) tensors and \(pairCount) metadata pairs do not fit into \(cursor.remaining) bytes",
        offset: 8)
    }
    try parseMetadata(pairCount)
    try parseAlignment()
    try parseTensors(tensorCount)
    try placeData()
  }

  // MARK: - The first 24 bytes

  private mutating func parseVersion() throws(Failure) {
    let magic = try cursor.bytes(4, "the magic number")
    guard magic.elementsEqual("GGUF".utf8) else { throw notGGUF(magic) }
    version = try cursor.integer(UInt32.self, "the version")
    switch version {
    case 2, 3: return
    case 1: throw Failure(.unsupported, "is GGUF version 1, read are 2 and 3; convert it anew", offset: 4)
    default: break
    }
    if (1...3).contains(version.byteSwapped) {
      throw Failure(.unsupported, "is a big-endian GGUF file (version \(version.byteSwapped)), read is little-endian")
    }
    throw Failure(.malformed, "GGUF version is \(version), known are 2 and 3", offset: 4)
  }

  private func notGGUF(_ magic: [UInt8]) -> Failure {
    let hex = magic.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined(separator: " ")
    let found: String? =
      switch String(validating: magic, as: UTF8.self) {
      case "FUGG": "a GGUF file with its bytes swapped (big-endian)"
      case "GGML", "lmgg", "GGMF", "fmgg", "GGJT", "tjgg", "ggml", "ggjt": "a model in the format before GGUF (GGML)"
      case "PK\u{3}\u{4}": "a ZIP archive (a PyTorch checkpoint?)"
      default: nil
      }
    if let found { return Failure(.unsupported, "is \(found), expected GGUF", offset: 0) }
    return Failure(.malformed, "begins with \(hex), a GGUF file begins with 47 47 55 46", offset: 0)
  }

  private mutating func count(_ what: String, limit: Int, leastBytes: Int) throws(Failure) -> Int {
    let offset = cursor.position
    let declared = try cursor.integer(UInt64.self, "the number of \(what)")
    guard let count = Int(exactly: declared), count <= limit, count <= cursor.remaining / leastBytes else {
      let possible = min(limit, cursor.remaining / leastBytes)
      throw Failure(
        .malformed, "declares \(declared) \(what), the file has room for \(possible) at most", offset: offset)
    }
    return count
  }

  // MARK: - Metadata

  private mutating func parseMetadata(_ count: Int) throws(Failure) {
    var offsets: [Int] = []
    for _ in 0..<count {
      offsets.append(cursor.position)
      let key = try parseKey()
      do throws(Failure) {
        let number = try cursor.integer(UInt32.self, "a type")
        pairs.append((key, try parseValue(try type(number))))
      } catch {
        var failure = error
        failure.message = "metadata '\(key.printable(limit: 256))': \(error.message)"
        failure.offset = failure.offset ?? offsets.last
        throw failure
      }
    }
    let keys = KeyOrder(count: pairs.count) { pairs[$0].key }
    if let (first, second) = keys.firstDuplicate {
      throw .duplicateKey(pairs[first].key, first: offsets[first], second: offsets[second])
    }
  }

  private mutating func parseKey() throws(Failure) -> String {
    let offset = cursor.position
    let length = try cursor.integer(UInt64.self, "the length of a key")
    guard (1...UInt64(GGUFHeader.keyLimit)).contains(length) else {
      throw Failure(
        .malformed, "a key of \(length) bytes, allowed are 1 to \(GGUFHeader.keyLimit)", offset: offset)
    }
    let bytes = try cursor.bytes(Int(length), "a key of \(length) bytes")
    guard let key = String(validating: bytes, as: UTF8.self), !bytes.contains(0) else {
      throw Failure(.malformed, "a key is not UTF-8, or holds a NUL", offset: offset)
    }
    return key
  }

  private func type(_ number: UInt32) throws(Failure) -> GGUFValueType {
    guard let type = GGUFValueType(rawValue: number) else {
      throw Failure(.malformed, "has the unknown type \(number), known are 0 to 12", offset: cursor.position - 4)
    }
    return type
  }

  private mutating func parseValue(_ type: GGUFValueType) throws(Failure) -> GGUFValue {
    switch type {
    case .uint8: .uint8(try number())
    case .int8: .int8(Int8(bitPattern: try number()))
    case .uint16: .uint16(try number())
    case .int16: .int16(Int16(bitPattern: try number()))
    case .uint32: .uint32(try number())
    case .int32: .int32(Int32(bitPattern: try number()))
    case .uint64: .uint64(try number())
    case .int64: .int64(Int64(bitPattern: try number()))
    case .float32: .float32(Float(bitPattern: try number()))
    case .float64: .float64(Double(bitPattern: try number()))
    case .bool: .bool(try bool())
    case .string: .string(try string())
    case .array: .array(try array(depth: 1))
    }
  }

  private mutating func number<T: FixedWidthInteger & UnsignedInteger>() throws(Failure) -> T {
    try cursor.integer(T.self, "its value")
  }

  private mutating func bool() throws(Failure) -> Bool {
    let byte: UInt8 = try number()
    guard byte <= 1 else {
      throw Failure(.malformed, "a bool is \(byte), allowed are 0 and 1", offset: cursor.position - 1)
    }
    return byte == 1
  }

  private mutating func length(_ what: String) throws(Failure) -> Int {
    let offset = cursor.position
    let declared = try cursor.integer(UInt64.self, "the length of \(what)")
    guard let length = Int(exactly: declared), length <= cursor.remaining else {
      throw Failure(
        .malformed, "\(what) of \(declared) bytes or elements, only \(cursor.remaining) bytes remain", offset: offset)
    }
    return length
  }

  private mutating func stringLength() throws(Failure) -> Int {
    let length = try length("a string")
    guard length <= GGUFHeader.stringLimit else {
      throw Failure(
        .malformed, "a string has \(length) bytes, allowed are \(GGUFHeader.stringLimit)", offset: cursor.position - 8)
    }
    return length
  }

  private mutating func string() throws(Failure) -> [UInt8] { try cursor.bytes(stringLength(), "a string") }

  /// Walks over the elements and keeps where they are.
  private mutating func array(depth: Int) throws(Failure) -> GGUFArray {
    guard depth <= GGUFHeader.nestingLimit else {
      throw Failure(
        .malformed, "arrays are nested deeper than the \(GGUFHeader.nestingLimit) levels allowed",
        offset: cursor.position)
    }
    let elementType = try type(try cursor.integer(UInt32.self, "an array's type"))
    let count = try length("an array")
    let start = cursor.position
    switch elementType {
    case .bool:
      try checkArray(count, start)
      for _ in 0..<count { _ = try bool() }
    case .string:
      for _ in 0..<count {
        try cursor.skip(stringLength(), "a string")
        try checkArray(cursor.position - start, start)
      }
    case .array:
      for _ in 0..<count {
        _ = try array(depth: depth + 1)
        try checkArray(cursor.position - start, start)
      }
    default:
      let (bytes, overflowed) = count.multipliedReportingOverflow(by: elementType.byteCount ?? 1)
      guard !overflowed, bytes <= cursor.remaining else {
        throw Failure(
          .malformed, "an array of \(count) \(elementType.name), only \(cursor.remaining) bytes remain", offset: start)
      }
      try checkArray(bytes, start)
      try cursor.skip(bytes, "an array")
    }
    return GGUFArray(elementType, count: count, .file(cursor.file, start..<cursor.position))
  }

  private func checkArray(_ byteCount: Int, _ start: Int) throws(Failure) {
    guard byteCount <= GGUFHeader.arrayLimit else {
      throw Failure(
        .malformed, "an array has \(byteCount) bytes, allowed are \(GGUFHeader.arrayLimit)", offset: start)
    }
  }

  private mutating func parseAlignment() throws(Failure) {
    guard let value = pairs.first(where: { $0.key == GGUFHeader.alignmentKey })?.value else { return }
    guard case .uint32(let declared) = value, (1...UInt32(GGUFHeader.alignmentLimit)).contains(declared),
      declared.nonzeroBitCount == 1
    else {
      let found = value.integer.map { "\(value.type.name) \($0)" } ?? value.type.name
      throw Failure(
        .malformed,
        "\(GGUFHeader.alignmentKey) is \(found), allowed is a uint32 that is a power of two, at most "
          + "\(GGUFHeader.alignmentLimit)")
    }
    alignment = Int(declared)
  }
}
