package import Bytes
package import GGUF
import JSON

extension GGUFValueType {
  /// As the command line names it: `u8`, `f32`, `str`.
  private static let shortNames: [(name: String, type: GGUFValueType)] = [
    ("u8", .uint8), ("i8", .int8), ("u16", .uint16), ("i16", .int16), ("u32", .uint32), ("i32", .int32),
    ("u64", .uint64), ("i64", .int64), ("f32", .float32), ("f64", .float64), ("bool", .bool), ("str", .string),
  ]

  var shortName: String { Self.shortNames.first { $0.type == self }?.name ?? name }

  /// Takes `u32:` and the like off the beginning; any other word before a colon belongs to the value.
  package static func prefix(of text: String) -> (type: GGUFValueType, rest: String)? {
    for (name, type) in shortNames where text.hasPrefix(name + ":") {
      return (type, String(text.dropFirst(name.count + 1)))
    }
    return nil
  }
}

extension GGUFValue {
  /// A value as a user writes it.
  ///
  /// - Parameters:
  ///   - text: `[…]` for an array, and a type before it where that is not to be the present one's, or the likely one.
  ///   - present: the value that it takes the place of.
  /// - Throws: `usage`, without the key, when the text is no value of the type.
  package init(text: String, replacing present: GGUFValue?) throws(Failure) {
    if let (type, rest) = GGUFValueType.prefix(of: text) {
      do throws(Failure) {
        self =
          type != .string && rest.hasPrefix("[")
          ? .array(try Self.array(rest, of: type)) : try Self.scalar(rest, type)
      } catch {
        guard case .string = present else { throw error }
        throw Failure(.usage, "\(error.message); for this very text write 'str:\(text)'")
      }
      return
    }
    switch present {
    case .array(let array): self = .array(try Self.array(text, of: array.elementType))
    case let value?: self = try Self.scalar(text, value.type)
    case nil: self = try Self.likely(text)
    }
  }

  /// The contents of a file: of the type of what it takes the place of, or text.
  package init(contents text: String, replacing present: GGUFValue?) throws(Failure) {
    switch present {
    case .array(let array): self = .array(try Self.array(text, of: array.elementType))
    case .string, nil: self = try Self.scalar(text, .string)
    case let value?:
      // A number in a file ends with its line.
      self = try Self.scalar(text.split(whereSeparator: \.isWhitespace).joined(separator: " "), value.type)
    }
  }

  // MARK: - A type that is known

  private static func scalar(_ text: String, _ type: GGUFValueType) throws(Failure) -> GGUFValue {
    func whole<T: FixedWidthInteger>(_ make: (T) -> GGUFValue) throws(Failure) -> GGUFValue {
      guard let value = T(text), !text.hasPrefix("+") else {
        throw Failure(.usage, "'\(text)' is not a whole number from \(T.min) to \(T.max) (\(type.name))")
      }
      return make(value)
    }
    switch type {
    case .uint8: return try whole(GGUFValue.uint8)
    case .int8: return try whole(GGUFValue.int8)
    case .uint16: return try whole(GGUFValue.uint16)
    case .int16: return try whole(GGUFValue.int16)
    case .uint32: return try whole(GGUFValue.uint32)
    case .int32: return try whole(GGUFValue.int32)
    case .uint64: return try whole(GGUFValue.uint64)
    case .int64: return try whole(GGUFValue.int64)
    case .float32:
      guard let value = Float(text), value.isFinite else { throw notFinite(text, type) }
      return .float32(value)
    case .float64:
      guard let value = Double(text), value.isFinite else { throw notFinite(text, type) }
      return .float64(value)
    case .bool:
      guard text == "true" || text == "false" else { throw Failure(.usage, "'\(text)' is not true or false (bool)") }
      return .bool(text == "true")
    case .string:
      guard text.utf8.count <= GGUFHeader.stringLimit else {
        throw Failure(.usage, "has \(text.utf8.count) bytes, allowed are \(GGUFHeader.stringLimit)")
      }
      return .text(text)
    case .array: throw Failure(.unsupported, "arrays of arrays cannot be set")
    }
  }

  private static func notFinite(_ text: String, _ type: GGUFValueType) -> Failure {
    Failure(.usage, "'\(text)' is not a number that \(type.name) can hold")
  }

  private static func array(_ text: String, of type: GGUFValueType) throws(Failure) -> GGUFArray {
    guard type != .array else { throw Failure(.unsupported, "arrays of arrays cannot be set") }
    var values: [GGUFValue] = []
    for element in try elements(text) {
      switch (element, type) {
      case (.string(let string), .string): values.append(.text(string))
      case (.bool(let bool), .bool): values.append(.bool(bool))
      case (.number(let number), _) where type != .string && type != .bool:
        values.append(try scalar(number.text, type))
      default: throw Failure(.usage, "an array of \(type.name) cannot hold \(element.kind.rawValue)")
      }
    }
    return try GGUFArray(type, of: values)
  }

  private static func elements(_ text: String) throws(Failure) -> [JSONValue] {
    do throws(Failure) {
      guard let elements = try JSONValue(parsing: Array(text.utf8)).array else {
        throw Failure(.usage, "'\(text.printable(limit: 64))' is not an array such as [1, 2]")
      }
      return elements
    } catch {
      if error.code == .usage { throw error }
      throw Failure(.usage, "'\(text.printable(limit: 64))' is not an array in JSON: \(error.text)")
    }
  }

  // MARK: - A type that is not

  /// Whole numbers are uint32 where they fit, as the hyper-parameters of llama.cpp are, others float32, as these are.
  private static func likely(_ text: String) throws(Failure) -> GGUFValue {
    if text.hasPrefix("[") {
      do throws(Failure) { return .array(try likelyArray(text)) } catch {
        throw Failure(.usage, "\(error.message); for this very text write 'str:\(text)'")
      }
    }
    if text == "true" || text == "false" { return .bool(text == "true") }
    guard case .number(let number) = try? JSONValue(parsing: Array(text.utf8)), number.text == text else {
      return try scalar(text, .string)
    }
    if let value = UInt32(text) { return .uint32(value) }
    if let value = Int32(text) { return .int32(value) }
    if let value = UInt64(text) { return .uint64(value) }
    if let value = Int64(text) { return .int64(value) }
    return try scalar(text, .float32)
  }

  /// Whole numbers are int32 where all fit, as gguf-py has it.
  private static func likelyArray(_ text: String) throws(Failure) -> GGUFArray {
    let elements = try elements(text)
    guard let first = elements.first else {
      throw Failure(.usage, "an empty array needs a type: u32:[] or the like")
    }
    switch first {
    case .string: return try array(text, of: .string)
    case .bool: return try array(text, of: .bool)
    default:
      let numbers = elements.map { $0.number?.text ?? "" }
      for type in [GGUFValueType.int32, .int64, .uint64] {
        if numbers.allSatisfy({ (try? scalar($0, type)) != nil }) { return try array(text, of: type) }
      }
      return try array(text, of: .float32)
    }
  }
}
