package import Bytes
import JSON
import Tensors

/// `model.safetensors.index.json`: which tensor is in which file of the directory.
package struct ShardIndex {
  package static let sizeLimit = 100_000_000

  /// Tensor names, in the order written.
  let names: [String]
  /// For each name the position of its file in `files`.
  let fileOfName: [UInt32]
  /// Distinct file names, sorted by bytes; each is one plain path component.
  let files: [String]
  /// `names` in byte order.
  let order: KeyOrder
  /// The bytes of all tensors by `metadata.total_size`.
  let totalSize: TotalSize

  enum TotalSize: Equatable {
    case absent
    case bytes(Int)
    /// Not a whole number that fits; the text found.
    case invalid(String)
  }

  /// - Throws: `malformed`, naming the entry and its offset.
  package init(parsing bytes: [UInt8]) throws(Failure) {
    var parser = Parser(reader: JSONReader(bytes))
    try parser.parse()
    names = parser.names
    order = KeyOrder(parser.names)
    if let (first, second) = order.firstDuplicate {
      throw .duplicateKey(
        parser.names[first], first: Int(parser.offsets[first]), second: Int(parser.offsets[second]))
    }
    let found = parser.files
    let sorted = KeyOrder(found)
    files = sorted.positions.map { found[Int($0)] }
    var rank = [UInt32](repeating: 0, count: found.count)
    for (new, old) in sorted.positions.enumerated() { rank[Int(old)] = UInt32(new) }
    fileOfName = parser.fileOfName.map { rank[Int($0)] }
    totalSize = parser.totalSize
  }

  /// Every tensor with its file, in the order written.
  package var entries: [(name: String, file: String)] {
    zip(names, fileOfName).map { ($0, files[Int($1)]) }
  }

  /// The first tensor, in byte order, that the index puts into a file, and how many there are.
  func tensors(in file: Int) -> (first: String, count: Int)? {
    var first: String?
    var count = 0
    for position in order.positions where Int(fileOfName[Int(position)]) == file {
      first = first ?? names[Int(position)]
      count += 1
    }
    return first.map { ($0, count) }
  }

  private struct Parser {
    var reader: JSONReader
    var names: [String] = []
    var offsets: [UInt32] = []
    var fileOfName: [UInt32] = []
    var files: [String] = []
    var totalSize = TotalSize.absent
    private var positionOfFile: [TensorName: UInt32] = [:]

    init(reader: JSONReader) { self.reader = reader }

    mutating func parse() throws(Failure) {
      var seen: [(key: String, offset: Int)] = []
      guard try reader.nextKind() == .object else {
        throw Failure(.malformed, "index is not a JSON object", offset: reader.offset)
      }
      try reader.enterObject()
      while let (key, offset) = try reader.nextMember() {
        if let earlier = seen.first(where: { KeyOrder.compare($0.key, key) == 0 }) {
          throw .duplicateKey(key, first: earlier.offset, second: offset)
        }
        switch key {
        case "weight_map": try parseWeightMap()
        case "metadata": try parseMetadata()
        default: try reader.skipValue()
        }
        // Only these two mean anything; remembering every key would make many keys slow.
        if key == "weight_map" || key == "metadata" { seen.append((key, offset)) }
      }
      try reader.finish()
      guard seen.contains(where: { $0.key == "weight_map" }) else {
        throw Failure(.malformed, "index has no 'weight_map'")
      }
      guard !names.isEmpty else { throw Failure(.malformed, "index has an empty 'weight_map'") }
    }

    private mutating func parseWeightMap() throws(Failure) {
      let kind = try reader.nextKind()
      guard kind == .object else {
        throw Failure(.malformed, "weight_map is \(kind.rawValue), expected an object", offset: reader.offset)
      }
      try reader.enterObject()
      while let (name, offset) = try reader.nextMember() {
        guard names.count < SafetensorsHeader.tensorLimit else {
          throw Failure(.malformed, "more than the \(SafetensorsHeader.tensorLimit) tensors allowed", offset: offset)
        }
        do throws(Failure) {
          fileOfName.append(try parseFile())
        } catch { throw error.located(tensor: name) }
        names.append(name)
        offsets.append(UInt32(clamping: offset))
      }
    }

    private mutating func parseFile() throws(Failure) -> UInt32 {
      let kind = try reader.nextKind()
      let offset = reader.offset
      guard kind == .string else {
        throw Failure(.malformed, "weight_map holds \(kind.rawValue), expected a file name", offset: offset)
      }
      let file = try reader.string()
      if let known = positionOfFile[TensorName(file)] { return known }
      guard InputDirectory.isPlainComponent(file) else {
        throw Failure(
          .malformed,
          "weight_map puts it into '\(file.printable(limit: 300))', which is not a plain name of a file "
            + "beside the index", offset: offset)
      }
      let position = UInt32(files.count)
      files.append(file)
      positionOfFile[TensorName(file)] = position
      return position
    }

    private mutating func parseMetadata() throws(Failure) {
      guard try reader.nextKind() == .object else { return try reader.skipValue() }
      try reader.enterObject()
      var first: Int?
      while let (key, offset) = try reader.nextMember() {
        guard key == "total_size" else {
          try reader.skipValue()
          continue
        }
        if let first { throw .duplicateKey(key, first: first, second: offset) }
        first = offset
        let kind = try reader.nextKind()
        if kind == .number {
          let number = try reader.number()
          totalSize = number.int.map { .bytes($0) } ?? .invalid(number.text)
        } else {
          try reader.skipValue()
          totalSize = .invalid(kind.rawValue)
        }
      }
    }
  }
}
