public import Bytes

extension JSONReader {
  // MARK: Strings

  /// A string, unescaped. Its bytes are exactly those of the text: nothing is normalized or repaired.
  public mutating func string() throws(Failure) -> String {
    skipWhitespace()
    let start = position
    guard case .unicode(let string) = try text() else { throw loneSurrogate(at: start) }
    return string
  }

  mutating func text() throws(Failure) -> JSONText {
    try expect(UInt8(ascii: "\""), "a string")
    let start = position
    var index = start
    while index < end {
      let byte = bytes[index]
      if byte == UInt8(ascii: "\"") {
        guard let text = String(validating: bytes[start..<index], as: UTF8.self) else {
          throw invalidUTF8(in: start..<index)
        }
        position = index + 1
        return .unicode(text)
      }
      if byte == UInt8(ascii: "\\") { return try escapedText(from: start, firstEscape: index) }
      if byte < 0x20 { throw failure("control character \(describe(byte)) in a string must be escaped", at: index) }
      index += 1
    }
    throw failure("string is not closed", at: start - 1)
  }

  /// Appends a string's bytes, unescaped: for the texts that are nothing but strings, hundreds of thousands of them.
  /// Where Python may have written it, they may be WTF-8.
  public mutating func string(appendingTo text: inout [UInt8]) throws(Failure) {
    try expect(UInt8(ascii: "\""), "a string")
    let start = position
    var index = start
    var isASCII = true
    while index < end {
      let byte = bytes[index]
      if byte == UInt8(ascii: "\"") {
        if !isASCII, UTF8Check.firstFault(in: bytes, start..<index) != nil { throw invalidUTF8(in: start..<index) }
        text.append(contentsOf: bytes[start..<index])
        position = index + 1
        return
      }
      if byte == UInt8(ascii: "\\") {
        switch try escapedText(from: start, firstEscape: index) {
        case .unicode(let string): text.append(contentsOf: string.utf8)
        case .illFormed(let string): text.append(contentsOf: string.bytes)
        }
        return
      }
      if byte < 0x20 { throw failure("control character \(describe(byte)) in a string must be escaped", at: index) }
      if byte >= 0x80 { isASCII = false }
      index += 1
    }
    throw failure("string is not closed", at: start - 1)
  }

  private mutating func escapedText(from start: Int, firstEscape: Int) throws(Failure) -> JSONText {
    var unescaped = Array(bytes[start..<firstEscape])
    var isIllFormed = false
    position = firstEscape
    while position < end {
      let byte = bytes[position]
      switch byte {
      case UInt8(ascii: "\""):
        if isIllFormed {
          if UTF8Check.firstFault(in: bytes, start..<position) != nil { throw invalidUTF8(in: start..<position) }
          position += 1
          return .illFormed(IllFormedString(wtf8: unescaped))
        }
        guard let text = String(validating: unescaped, as: UTF8.self) else { throw invalidUTF8(in: start..<position) }
        position += 1
        return .unicode(text)
      case UInt8(ascii: "\\"):
        if try unescape(into: &unescaped) { isIllFormed = true }
      case 0..<0x20:
        throw failure("control character \(describe(byte)) in a string must be escaped")
      default:
        unescaped.append(byte)
        position += 1
      }
    }
    throw failure("string is not closed", at: start - 1)
  }

  /// True when it is half of a surrogate pair.
  private mutating func unescape(into text: inout [UInt8]) throws(Failure) -> Bool {
    let escape = position
    guard position + 1 < end else { throw failure("string is not closed") }
    let letter = bytes[position + 1]
    position += 2
    switch letter {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(letter)
    case UInt8(ascii: "b"): text.append(0x08)
    case UInt8(ascii: "f"): text.append(0x0C)
    case UInt8(ascii: "n"): text.append(0x0A)
    case UInt8(ascii: "r"): text.append(0x0D)
    case UInt8(ascii: "t"): text.append(0x09)
    case UInt8(ascii: "u"):
      var value = try hexDigits(of: escape)
      if (0xD800..<0xDC00).contains(value), position + 1 < end, bytes[position] == UInt8(ascii: "\\"),
        bytes[position + 1] == UInt8(ascii: "u")
      {
        let second = position
        position += 2
        let low = try hexDigits(of: escape)
        if (0xDC00..<0xE000).contains(low) {
          value = 0x10000 + (value - 0xD800) * 0x400 + (low - 0xDC00)
        } else {
          position = second
        }
      }
      guard let scalar = Unicode.Scalar(value) else {
        guard dialect == .python else { throw loneSurrogate(at: escape) }
        text += [0xE0 | UInt8(value >> 12), 0x80 | UInt8(value >> 6 & 0x3F), 0x80 | UInt8(value & 0x3F)]
        return true
      }
      text.append(contentsOf: Array(String(Character(scalar)).utf8))
    default:
      throw failure("found \(describe(letter)) after a backslash, expected one of \" \\ / b f n r t u", at: escape)
    }
    return false
  }

  private mutating func hexDigits(of escape: Int) throws(Failure) -> UInt32 {
    guard end - position >= 4 else { throw failure("\\u needs four hexadecimal digits", at: escape) }
    var value: UInt32 = 0
    for byte in bytes[position..<position + 4] {
      guard let digit = Character(Unicode.Scalar(byte)).hexDigitValue, byte < 0x80 else {
        throw failure("\\u needs four hexadecimal digits", at: escape)
      }
      value = value * 16 + UInt32(digit)
    }
    position += 4
    return value
  }

  private func loneSurrogate(at escape: Int) -> Failure {
    failure("\\u escape is half of a surrogate pair", at: escape)
  }

  private func invalidUTF8(in range: Range<Int>) -> Failure {
    let position = UTF8Check.firstFault(in: bytes, range) ?? range.lowerBound
    return failure("\(describe(bytes[position])) is not valid UTF-8 here", at: position)
  }

  // MARK: Numbers and words

  /// A number with the text it was written with.
  public mutating func number() throws(Failure) -> JSONNumber {
    let range = try numberRange()
    return JSONNumber(verbatim: String(bytes[range].lazy.map { Character(Unicode.Scalar($0)) }))
  }

  /// A whole number from 0 to `Int.max`, written with digits only (`4.0` and `4e0` are not).
  ///
  /// - Parameter subject: what the number is, to begin the message with.
  public mutating func wholeNumber(_ subject: StaticString) throws(Failure) -> Int {
    let kind = try nextKind()
    let start = position
    guard kind == .number else {
      throw failure("\(subject): found \(kind.rawValue), expected a whole number")
    }
    let range = try numberRange()
    var value = 0
    for byte in bytes[range] {
      guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else {
        throw failure("\(subject): found \(shown(range)), expected a whole number from 0 up", at: start)
      }
      let (tens, overflowed) = value.multipliedReportingOverflow(by: 10)
      let (sum, overflowedToo) = tens.addingReportingOverflow(Int(byte - UInt8(ascii: "0")))
      if overflowed || overflowedToo {
        throw failure("\(subject): found \(shown(range)), which overflows the \(Int.max) allowed", at: start)
      }
      value = sum
    }
    return value
  }

  private func shown(_ range: Range<Int>) -> String {
    let text = String(bytes[range].prefix(40).lazy.map { Character(Unicode.Scalar($0)) })
    return range.count > 40 ? "\(text)… (\(range.count) digits)" : text
  }

  /// Checks the grammar `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?` and passes over it.
  mutating func numberRange() throws(Failure) -> Range<Int> {
    let first = try peek("a number")
    let start = position
    if first == UInt8(ascii: "-") { position += 1 }
    if dialect == .python, position < end {
      // As Python's parser has it: a sign may stand before the one, not before the other.
      let isInfinity = bytes[position] == UInt8(ascii: "I")
      if isInfinity || bytes[position] == UInt8(ascii: "N") && position == start {
        try word(isInfinity ? "Infinity" : "NaN")
        return start..<position
      }
    }
    if position < end, bytes[position] == UInt8(ascii: "0") {
      position += 1
      if position < end, isDigit(bytes[position]) { throw failure("a number must not begin with 0", at: start) }
    } else {
      try digits()
    }
    if position < end, bytes[position] == UInt8(ascii: ".") {
      position += 1
      try digits()
    }
    if position < end, bytes[position] | 0x20 == UInt8(ascii: "e") {
      position += 1
      if position < end, bytes[position] == UInt8(ascii: "+") || bytes[position] == UInt8(ascii: "-") { position += 1 }
      try digits()
    }
    return start..<position
  }

  private mutating func digits() throws(Failure) {
    guard position < end, isDigit(bytes[position]) else { throw unexpected("a digit") }
    while position < end, isDigit(bytes[position]) { position += 1 }
  }

  private func isDigit(_ byte: UInt8) -> Bool { byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }

  public mutating func bool() throws(Failure) -> Bool {
    if try peek("true or false") == UInt8(ascii: "t") {
      try word("true")
      return true
    }
    try word("false")
    return false
  }

  public mutating func null() throws(Failure) { try word("null") }

  private mutating func word(_ word: StaticString) throws(Failure) {
    let start = position
    for expected in word.description.utf8 {
      guard position < end, bytes[position] == expected else {
        position = start
        throw unexpected(word)
      }
      position += 1
    }
  }
}
