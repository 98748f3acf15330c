import Bytes
import Tensors

extension ImportanceMatrix {
  private static let nameLimit = 65_535

  /// The form before GGUF, all numbers 32 bits: how many tensors; for each the length of its name, the name, a divisor,
  /// how many values, the values; then, if at all, how many pieces of text, the length of the dataset's name, and that.
  static func legacy(_ file: InputFile) throws(Failure) -> Content {
    var reader = Reader(file: file)
    let count = try reader.number("the number of tensors", in: 1...entryLimit)
    var entries: [TensorName: Entry] = [:]
    for _ in 0..<count {
      let start = reader.position
      let length = try reader.number("the length of a name", in: 1...nameLimit)
      let bytes = try reader.bytes(length, "a name")
      guard let text = String(validating: bytes, as: UTF8.self), !bytes.contains(0) else {
        throw Failure(.malformed, "a name is not text", offset: start)
      }
      do throws(Failure) {
        let divisor = try reader.number("the number of calls", in: 0...Int(Int32.max))
        let values = try reader.number("the number of values", in: 1...Int(Int32.max))
        let entry = Entry(offset: reader.position, count: values, divisors: [Float(divisor)], unmeasured: nil)
        try reader.skip(4 * values, "the values")
        guard entries.updateValue(entry, forKey: TensorName(text)) == nil else {
          throw Failure(.malformed, "is there twice", offset: start)
        }
      } catch { throw error.located(tensor: text) }
    }
    guard reader.remaining > 0 else { return (entries, [], 0) }
    let chunkCount = try reader.number("the number of chunks", in: 0...Int(Int32.max))
    let length = try reader.number("the length of the dataset's name", in: 0...nameLimit)
    let dataset = try reader.bytes(length, "the dataset's name")
    guard reader.remaining == 0 else {
      throw Failure(
        .malformed, "\(reader.remaining == 1 ? "1 byte follows" : "\(reader.remaining) bytes follow") the last field",
        offset: reader.position)
    }
    return (entries, dataset.isEmpty ? [] : [dataset], chunkCount)
  }

  private struct Reader {
    let file: InputFile
    var position = 0

    init(file: InputFile) { self.file = file }

    var remaining: Int { file.size - position }

    mutating func number(_ what: String, in allowed: ClosedRange<Int>) throws(Failure) -> Int {
      let start = position
      let bytes = try bytes(4, what)
      let value = Int(Int32(bitPattern: bytes.reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }))
      guard allowed.contains(value) else {
        throw Failure(
          .malformed, "\(what) is \(value), allowed are \(allowed.lowerBound) to \(allowed.upperBound)", offset: start)
      }
      return value
    }

    mutating func bytes(_ count: Int, _ what: String) throws(Failure) -> [UInt8] {
      let start = position
      try skip(count, what)
      return try file.bytes(in: start..<position)
    }

    mutating func skip(_ count: Int, _ what: String) throws(Failure) {
      guard count <= remaining else {
        throw Failure(
          .malformed,
          "ends inside \(what): \(count == 1 ? "1 byte is" : "\(count) bytes are") needed, \(remaining) remain",
          offset: position)
      }
      position += count
    }
  }
}
