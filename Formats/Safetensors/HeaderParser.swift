import Bytes
import JSON
import Tensors

/// Reads the JSON of a header into plain arrays, then checks the layout as a whole.
struct HeaderParser {
  private(set) var tensors: [TensorInfo] = []
  /// First byte of each tensor, counted from the start of the data section.
  private(set) var begins: [Int] = []
  private(set) var metadata: [(key: String, value: String)] = []
  private(set) var order = KeyOrder([])
  private var reader: JSONReader
  /// Tensors that have some, and the first of each.
  private var unknownFields: (tensors: [String], fields: [String]) = ([], [])
  private var hasEmptyName = false

  init(_ json: [UInt8], baseOffset: Int) {
    reader = JSONReader(json, baseOffset: baseOffset)
  }

  var warnings: [Warning] {
    var warnings: [Warning] = []
    if hasEmptyName { warnings.append("a tensor's name is empty") }
    if !unknownFields.tensors.isEmpty {
      var seen: Set<String> = []
      let fields = unknownFields.fields.filter { seen.insert($0).inserted }
      warnings.append("tensor \(names: unknownFields.tensors): unknown field \(names: fields) ignored")
    }
    return warnings
  }

  mutating func parse() throws(Failure) {
    var keyOffsets: [UInt32] = []
    var metadataOffset: Int?
    guard try reader.nextKind() == .object else {
      throw Failure(.malformed, "header is not a JSON object", offset: reader.offset)
    }
    try reader.enterObject()
    while let (key, offset) = try reader.nextMember() {
      if key.utf8.elementsEqual("__metadata__".utf8) {
        if let metadataOffset { throw .duplicateKey(key, first: metadataOffset, second: offset) }
        metadataOffset = offset
        try parseMetadata()
        continue
      }
      guard tensors.count < SafetensorsHeader.tensorLimit else {
        throw Failure(.malformed, "more than the \(SafetensorsHeader.tensorLimit) tensors allowed", offset: offset)
      }
      do throws(Failure) {
        try parseTensor(key)
      } catch {
        var failure = error.located(tensor: key)
        failure.offset = failure.offset ?? offset
        throw failure
      }
      keyOffsets.append(UInt32(clamping: offset))
    }
    try reader.finish()
    let names = KeyOrder(count: tensors.count) { tensors[$0].name.string }
    if let (first, second) = names.firstDuplicate {
      throw Failure(
        .malformed, "the name occurs twice, first at offset \(keyOffsets[first])", tensor: tensors[first].name.string,
        offset: Int(keyOffsets[second]))
    }
    order = names
  }

  private mutating func parseMetadata() throws(Failure) {
    if try reader.nextKind() == .null { return try reader.null() }
    var offsets: [Int] = []
    try reader.enterObject()
    while let (key, offset) = try reader.nextMember() {
      let kind = try reader.nextKind()
      guard kind == .string else {
        throw Failure(
          .malformed, "__metadata__: '\(key.printable(limit: 256))' holds \(kind.rawValue), expected a string",
          offset: reader.offset)
      }
      metadata.append((key, try reader.string()))
      offsets.append(offset)
    }
    let order = KeyOrder(count: metadata.count) { metadata[$0].key }
    if let (first, second) = order.firstDuplicate {
      throw .duplicateKey(metadata[first].key, first: offsets[first], second: offsets[second])
    }
  }

  private mutating func parseTensor(_ name: String) throws(Failure) {
    var type: ElementType?
    var shape: [Int]?
    var range: (begin: Int, end: Int)?
    var seen: [(field: String, offset: Int)] = []
    var hasUnknownField = false
    try reader.enterObject()
    while let (field, offset) = try reader.nextMember() {
      // The first of two equal fields is remembered only for the three that mean something.
      switch field {
      case "dtype", "shape", "data_offsets":
        if let earlier = seen.first(where: { $0.field == field }) {
          throw .duplicateKey(field, first: earlier.offset, second: offset)
        }
        seen.append((field, offset))
      default: break
      }
      switch field {
      case "dtype": type = try parseType()
      case "shape": shape = try parseShape()
      case "data_offsets": range = try parseOffsets()
      default:
        if !hasUnknownField {
          hasUnknownField = true
          unknownFields.tensors.append(name)
          unknownFields.fields.append(field)
        }
        try reader.skipValue()
      }
    }
    guard let type else { throw Failure(.malformed, "has no 'dtype'") }
    guard let shape else { throw Failure(.malformed, "has no 'shape'") }
    guard let range else { throw Failure(.malformed, "has no 'data_offsets'") }
    let tensor = try TensorInfo(name: TensorName(name), type: type, shape: shape)
    guard tensor.byteCount == range.end - range.begin else {
      throw Failure(
        .malformed,
        "shape \(shape) × \(type.name) needs \(tensor.byteCount) bytes, data_offsets [\(range.begin), \(range.end)] "
          + "give \(range.end - range.begin)")
    }
    if name.isEmpty { hasEmptyName = true }
    tensors.append(tensor)
    begins.append(range.begin)
  }

  private mutating func parseType() throws(Failure) -> ElementType {
    let kind = try reader.nextKind()
    let offset = reader.offset
    guard kind == .string else {
      throw Failure(.malformed, "dtype: found \(kind.rawValue), expected a string", offset: offset)
    }
    let name = try reader.string()
    guard let type = ElementType(name: name) else {
      let known = ElementType.allCases.map(\.name).joined(separator: " ")
      throw Failure(
        .malformed, "dtype: found '\(name.printable(limit: 64))', expected one of \(known)", offset: offset)
    }
    return type
  }

  private mutating func parseShape() throws(Failure) -> [Int] {
    var shape: [Int] = []
    let kind = try reader.nextKind()
    guard kind == .array else {
      throw Failure(.malformed, "shape: found \(kind.rawValue), expected an array", offset: reader.offset)
    }
    try reader.enterArray()
    while try reader.nextElement() {
      guard shape.count < SafetensorsHeader.rankLimit else {
        throw Failure(
          .malformed, "shape has more than the \(SafetensorsHeader.rankLimit) dimensions allowed", offset: reader.offset
        )
      }
      shape.append(try reader.wholeNumber("shape"))
    }
    return shape
  }

  private mutating func parseOffsets() throws(Failure) -> (begin: Int, end: Int) {
    let kind = try reader.nextKind()
    let offset = reader.offset
    guard kind == .array else {
      throw Failure(.malformed, "data_offsets: found \(kind.rawValue), expected an array", offset: offset)
    }
    var found: [Int] = []
    try reader.enterArray()
    while try reader.nextElement() {
      guard found.count < 2 else {
        throw Failure(.malformed, "data_offsets has more than the 2 entries [begin, end]", offset: offset)
      }
      found.append(try reader.wholeNumber("data_offsets"))
    }
    guard found.count == 2 else {
      throw Failure(
        .malformed, "data_offsets has \(counted(found.count, "entry", "entries")), expected 2: [begin, end]",
        offset: offset)
    }
    guard found[0] <= found[1] else {
      throw Failure(.malformed, "data_offsets \(found) end before they begin", offset: offset)
    }
    return (found[0], found[1])
  }
}

// MARK: - Layout

extension HeaderParser {
  /// Puts the tensors in the order of their data; those without any, before what begins there.
  mutating func sortByData() {
    func precedes(_ left: Int, _ right: Int) -> Bool {
      (begins[left], tensors[left].byteCount) < (begins[right], tensors[right].byteCount)
    }
    if (1..<max(1, tensors.count)).allSatisfy({ !precedes($0, $0 - 1) }) { return }
    let sorted = (0..<tensors.count).sorted { precedes($0, $1) || (!precedes($1, $0) && $0 < $1) }
    tensors = sorted.map { tensors[$0] }
    begins = sorted.map { begins[$0] }
    var moved = [UInt32](repeating: 0, count: sorted.count)
    for (new, old) in sorted.enumerated() { moved[old] = UInt32(new) }
    order = order.moved(to: moved)
  }

  /// The end of the data section as the tensors give it; the caller compares it with the file.
  ///
  /// - Throws: `malformed` when a tensor does not begin exactly where the one before it ends.
  func dataEnd() throws(Failure) -> Int {
    var end = 0
    for (index, tensor) in tensors.enumerated() {
      let begin = begins[index]
      if begin < end {
        throw Failure(
          .malformed,
          "data begins at \(begin) and overlaps tensor '\(tensors[index - 1].name.string.printable(limit: 256))', "
            + "which ends at \(end) of the data section", tensor: tensor.name.string)
      }
      if begin > end {
        throw Failure(
          .malformed,
          "data begins at \(begin), leaving a hole of \(counted(begin - end, "byte")) from \(end) of the data section",
          tensor: tensor.name.string)
      }
      let (next, overflowed) = begin.addingReportingOverflow(tensor.byteCount)
      if overflowed { throw Failure(.malformed, "data_offsets overflow", tensor: tensor.name.string) }
      end = next
    }
    return end
  }

  /// The first tensor whose data is not all within `dataSize` bytes.
  func firstTensor(endingAfter dataSize: Int) -> String? {
    tensors.indices.first { begins[$0] + tensors[$0].byteCount > dataSize }.map { tensors[$0].name.string }
  }
}
