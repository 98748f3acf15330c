/// The front matter of a model card (`README.md`): the part of YAML that model cards are written in.
///
/// Scalars, quoted or not, folded and literal blocks, lists in either style, and lists of flat mappings. What is
/// nested deeper is passed over.
struct ModelCard {
  indirect enum Value: Equatable {
    case null
    case text(String)
    case list([Value])
    case mapping([String: String])
    /// Nested deeper than anything here is read.
    case other
  }

  private(set) var values: [String: Value] = [:]

  init() {}

  init(_ file: [UInt8]) {
    let text = String(decoding: file, as: UTF8.self)
    let lines = text.split(omittingEmptySubsequences: false) { $0.isNewline }.map { String($0) }
    guard lines.first == "---" else { return }
    let body = lines.dropFirst().prefix { $0 != "---" }.map {
      $0.split(separator: "\t", omittingEmptySubsequences: false)
    }
    parse(body.map { $0.joined(separator: "  ") })
  }

  /// The text of a scalar, or of the first of a list.
  subscript(key: String) -> Value? { values[key] }

  private mutating func parse(_ lines: [String]) {
    var index = 0
    while index < lines.count {
      let line = lines[index]
      index += 1
      guard let (key, rest) = Self.pair(line), !line.hasPrefix(" "), !line.hasPrefix("#"), !line.hasPrefix("-") else {
        continue
      }
      // What belongs to the key: deeper lines, and items of a list, which may stand at the key's own depth.
      var block: [String] = []
      while index < lines.count {
        let next = lines[index]
        let isBlank = next.allSatisfy { $0 == " " }
        guard isBlank || next.hasPrefix(" ") || (rest.isEmpty && next.hasPrefix("- ")) || next == "-" else { break }
        block.append(next)
        index += 1
      }
      values[key] = Self.value(rest, block)
    }
  }

  private static func value(_ rest: String, _ block: [String]) -> Value {
    let lines = block.filter { line in !line.allSatisfy { $0 == " " } && !trimmed(line).hasPrefix("#") }
    if rest.hasPrefix("|") || rest.hasPrefix(">") { return .text(blockText(rest, block)) }
    if rest.isEmpty {
      guard let first = lines.first else { return .null }
      if trimmed(first).hasPrefix("- ") || trimmed(first) == "-" { return .list(items(lines)) }
      if pair(first) != nil { return .other }
    }
    let joined = ([rest] + lines.map(trimmed)).filter { !$0.isEmpty }.joined(separator: " ")
    if joined.hasPrefix("[") { return .list(flow(joined)) }
    if joined.hasPrefix("{") { return .other }
    return scalar(joined)
  }

  private static func items(_ lines: [String]) -> [Value] {
    let depth = lines.first.map(indent) ?? 0
    var groups: [[String]] = []
    for line in lines {
      if indent(line) == depth, trimmed(line).hasPrefix("-") {
        groups.append([String(trimmed(line).dropFirst())])
      } else if !groups.isEmpty {
        groups[groups.count - 1].append(line)
      }
    }
    return groups.map { group in
      let first = trimmed(group[0])
      if !first.hasPrefix("\""), !first.hasPrefix("'"), pair(first) != nil {
        var mapping: [String: String] = [:]
        for line in group {
          guard let (key, rest) = pair(trimmed(line)) else { return .other }
          if case .text(let text) = scalar(rest) { mapping[key] = text }
        }
        return .mapping(mapping)
      }
      if first.hasPrefix("[") || first.hasPrefix("- ") { return .other }
      return scalar(group.map(trimmed).joined(separator: " "))
    }
  }

  /// `[a, "b, c"]`
  private static func flow(_ text: String) -> [Value] {
    var items: [String] = [""]
    var quote: Character?
    for character in text.dropFirst() {
      if let open = quote {
        if character == open { quote = nil }
      } else if character == "\"" || character == "'" {
        quote = character
      } else if character == "]" {
        break
      } else if character == "," {
        items.append("")
        continue
      }
      items[items.count - 1].append(character)
    }
    let trimmed = items.map(trimmed)
    return (trimmed.last == "" ? trimmed.dropLast() : trimmed[...]).map(scalar)
  }

  private static func blockText(_ header: String, _ block: [String]) -> String {
    let depth = block.first { !$0.allSatisfy { $0 == " " } }.map(indent) ?? 0
    var lines = block.map { String($0.dropFirst(min(depth, indent($0)))) }
    while lines.last == "" { lines.removeLast() }
    let text = header.hasPrefix("|") ? lines.joined(separator: "\n") : folded(lines)
    return text.isEmpty || header.contains("-") ? text : text + "\n"
  }

  /// Lines become one, blank lines become breaks.
  private static func folded(_ lines: [String]) -> String {
    var text = ""
    var isOpen = false
    for line in lines {
      if line.isEmpty {
        text += "\n"
        isOpen = false
      } else {
        text += (isOpen ? " " : "") + line
        isOpen = true
      }
    }
    return text
  }

  private static func scalar(_ text: String) -> Value {
    if text.hasPrefix("\"") { return .text(doubleQuoted(text)) }
    if text.hasPrefix("'") {
      return .text(singleQuoted(text))
    }
    var plain = text
    if let comment = plain.firstRange(of: " #") { plain = trimmed(String(plain[..<comment.lowerBound])) }
    if ["", "~", "null", "Null", "NULL"].contains(plain) { return .null }
    return .text(plain)
  }

  /// Two quotes are one.
  private static func singleQuoted(_ text: String) -> String {
    var result = ""
    var isPending = false
    for character in text.dropFirst() {
      if character == "'" {
        if isPending { result.append(character) }
        isPending.toggle()
      } else if isPending {
        break
      } else {
        result.append(character)
      }
    }
    return result
  }

  private static func doubleQuoted(_ text: String) -> String {
    var result = ""
    var rest = text.unicodeScalars.dropFirst()
    while let scalar = rest.popFirst(), scalar != "\"" {
      guard scalar == "\\" else {
        result.unicodeScalars.append(scalar)
        continue
      }
      switch rest.popFirst() {
      case "n": result += "\n"
      case "t": result += "\t"
      case "x":
        let digits = String(String.UnicodeScalarView(rest.prefix(2)))
        rest = rest.dropFirst(2)
        if let value = UInt8(digits, radix: 16) { result.unicodeScalars.append(Unicode.Scalar(value)) }
      case let other?: result.unicodeScalars.append(other)
      case nil: break
      }
    }
    return result
  }

  /// `key: rest`; nil for anything else.
  private static func pair(_ line: String) -> (key: String, rest: String)? {
    let colon: String.Index
    if let found = line.firstRange(of: ": ") {
      colon = found.lowerBound
    } else if line.hasSuffix(":") {
      colon = line.index(before: line.endIndex)
    } else {
      return nil
    }
    let key = trimmed(String(line[..<colon]))
    let rest = trimmed(String(line[line.index(after: colon)...]))
    let isComment = rest.hasPrefix("#")
    return key.isEmpty ? nil : (key.filter { $0 != "\"" && $0 != "'" }, isComment ? "" : rest)
  }

  private static func indent(_ line: String) -> Int { line.prefix { $0 == " " }.count }

  private static func trimmed(_ text: String) -> String {
    String(text.drop { $0.isWhitespace }.reversed().drop { $0.isWhitespace }.reversed())
  }
}
