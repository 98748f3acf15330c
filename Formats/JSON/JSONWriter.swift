import Bytes

/// Writes one JSON text, value by value, as bytes: what is written takes time in proportion to its length, and a long
/// text need not be held whole.
///
/// Each container has a layout of its own, so that a file can have a line for each entry.
public struct JSONWriter: Sendable {
  /// The bytes written since they were last cleared.
  public private(set) var bytes: [UInt8] = []

  private struct Container {
    let style: JSONStyle
    let closing: UInt8
    var isEmpty = true
  }

  private var containers: [Container] = []
  /// A key has been written, its value not yet.
  private var followsKey = false

  public init() {}

  /// Forgets what has been passed on.
  public mutating func clear() { bytes.removeAll(keepingCapacity: true) }

  // MARK: - Containers

  public mutating func beginObject(_ style: JSONStyle) { begin("{", "}", style) }
  public mutating func beginArray(_ style: JSONStyle) { begin("[", "]", style) }

  /// Closes the object or array begun last.
  ///
  /// - Parameter breaks: the bracket stands on a line of its own even when nothing is in between.
  public mutating func end(breaks: Bool = false) {
    guard let container = containers.popLast() else { preconditionFailure("no container was begun") }
    if container.style == .indented, breaks || !container.isEmpty { breakLine() }
    bytes.append(container.closing)
  }

  public mutating func key(_ key: String) {
    string(key)
    colon()
  }

  /// - Parameter key: UTF-8.
  public mutating func key(utf8 key: ArraySlice<UInt8>) {
    string(utf8: key)
    colon()
  }

  // MARK: - Values

  public mutating func null() { word("null") }
  public mutating func bool(_ value: Bool) { word(value ? "true" : "false") }
  public mutating func number(_ value: Int) { word(String(value)) }
  public mutating func number(_ value: JSONNumber) { word(value.text) }

  /// A character that could harm a terminal (control, DEL, C1, bidirectional, invisible) is escaped.
  public mutating func string(_ string: String) {
    separate()
    quote(string.utf8Span.span)
  }

  /// - Parameter text: UTF-8.
  public mutating func string(utf8 text: ArraySlice<UInt8>) {
    separate()
    quote(text.span)
  }

  mutating func string(_ string: IllFormedString) {
    separate()
    quote(string.bytes.span)
  }

  /// - Parameter style: of its containers; nil for that of the container that it stands in.
  public mutating func value(_ value: JSONValue, _ style: JSONStyle? = nil) {
    let style = style ?? containers.last?.style ?? .compact
    switch value {
    case .null: null()
    case .bool(let value): bool(value)
    case .number(let value): number(value)
    case .string(let value): string(value)
    case .illFormed(let value): string(value)
    case .array(let elements):
      beginArray(style)
      for element in elements { self.value(element, style) }
      end()
    case .object(let object):
      beginObject(style)
      object.visit { key, value in
        switch key {
        case .unicode(let key): self.key(key)
        case .illFormed(let key):
          string(key)
          colon()
        }
        self.value(value, style)
      }
      end()
    }
  }

  // MARK: - Members

  public mutating func member(_ key: String, _ value: JSONValue, _ style: JSONStyle? = nil) {
    self.key(key)
    self.value(value, style)
  }

  public mutating func member(_ key: String, _ value: Int) {
    self.key(key)
    number(value)
  }

  /// A list on one line, whatever the container's layout.
  public mutating func member(_ key: String, _ values: [Int]) {
    self.key(key)
    beginArray(containers.last?.style == .compact ? .compact : .line)
    for value in values { number(value) }
    end()
  }

  public mutating func member(_ key: String, _ value: String) {
    self.key(key)
    string(value)
  }

  // MARK: - Bytes

  private mutating func begin(_ opening: Unicode.Scalar, _ closing: Unicode.Scalar, _ style: JSONStyle) {
    separate()
    bytes.append(UInt8(ascii: opening))
    containers.append(Container(style: style, closing: UInt8(ascii: closing)))
  }

  /// Writes the comma and the white space before an element of the container begun last.
  private mutating func separate() {
    if followsKey {
      followsKey = false
      return
    }
    guard let last = containers.indices.last else { return }
    let container = containers[last]
    containers[last].isEmpty = false
    if !container.isEmpty { bytes.append(UInt8(ascii: ",")) }
    switch container.style {
    case .compact: break
    case .line: if !container.isEmpty { bytes.append(UInt8(ascii: " ")) }
    case .indented: breakLine()
    }
  }

  private mutating func colon() {
    bytes.append(UInt8(ascii: ":"))
    if containers.last?.style != .compact { bytes.append(UInt8(ascii: " ")) }
    followsKey = true
  }

  private mutating func breakLine() {
    bytes.append(UInt8(ascii: "\n"))
    bytes.append(contentsOf: repeatElement(UInt8(ascii: " "), count: 2 * containers.count))
  }

  private mutating func word(_ text: String) {
    separate()
    bytes.append(contentsOf: text.utf8)
  }

  /// - Parameter text: UTF-8, or WTF-8.
  private mutating func quote(_ text: borrowing Span<UInt8>) {
    bytes.append(UInt8(ascii: "\""))
    // Up to here it is written; from here on it can be as it is.
    var start = 0
    var index = 0
    while index < text.count {
      let (value, end) = Self.scalar(text, at: index)
      if !Self.isPlain(value) {
        append(text, start..<index)
        escape(value)
        start = end
      }
      index = end
    }
    append(text, start..<text.count)
    bytes.append(UInt8(ascii: "\""))
  }

  private mutating func append(_ text: borrowing Span<UInt8>, _ range: Range<Int>) {
    unsafe text.extracting(range).withUnsafeBufferPointer { unsafe bytes.append(contentsOf: $0) }
  }

  @inline(__always)
  private static func scalar(_ text: borrowing Span<UInt8>, at index: Int) -> (value: UInt32, end: Int) {
    let first = text[index]
    if first < 0x80 { return (UInt32(first), index + 1) }
    let length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4
    let end = min(index + length, text.count)
    var value = UInt32(first & (0x7F >> UInt8(length)))
    for position in (index + 1)..<end { value = value << 6 | UInt32(text[position] & 0x3F) }
    return (value, end)
  }

  @inline(__always)
  private static func isPlain(_ value: UInt32) -> Bool {
    if value < 0x7F { return value >= 0x20 && value != 0x22 && value != 0x5C }
    return Unicode.Scalar(value)?.isHarmless ?? false
  }

  private mutating func escape(_ value: UInt32) {
    bytes.append(UInt8(ascii: "\\"))
    switch value {
    case 0x22, 0x5C: bytes.append(UInt8(value))
    case 0x0A: bytes.append(UInt8(ascii: "n"))
    case 0x0D: bytes.append(UInt8(ascii: "r"))
    case 0x09: bytes.append(UInt8(ascii: "t"))
    case 0x08: bytes.append(UInt8(ascii: "b"))
    case 0x0C: bytes.append(UInt8(ascii: "f"))
    case ..<0x10000: hexadecimal(value)
    default:
      hexadecimal(0xD800 + (value - 0x10000) >> 10)
      bytes.append(UInt8(ascii: "\\"))
      hexadecimal(0xDC00 + value & 0x3FF)
    }
  }

  private mutating func hexadecimal(_ unit: UInt32) {
    bytes.append(UInt8(ascii: "u"))
    for shift: UInt32 in [12, 8, 4, 0] {
      let digit = UInt8(truncatingIfNeeded: unit >> shift & 0xF)
      bytes.append(digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10)
    }
  }
}
