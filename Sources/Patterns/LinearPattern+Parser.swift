extension LinearPattern {
  /// A pattern as it is written.
  package indirect enum Tree {
    case character([ClosedRange<Unicode.Scalar>], isNegated: Bool)
    case start
    case end
    case wordBoundary(isNegated: Bool)
    case sequence([Tree])
    case alternatives([Tree])
    case repeated(Tree, Int, Int?)

    var isAssertion: Bool {
      switch self {
      case .start, .end, .wordBoundary: true
      case .character, .sequence, .alternatives, .repeated: false
      }
    }

    /// The characters of a pattern that has nothing else, nil for any.
    package var literal: [Unicode.Scalar?]? {
      guard case .sequence(let parts) = self else { return nil }
      var result: [Unicode.Scalar?] = []
      for part in parts {
        guard case .character(let ranges, let isNegated) = part, ranges.count == 1,
          ranges[0].lowerBound == ranges[0].upperBound, !isNegated || ranges[0].lowerBound == "\n"
        else { return nil }
        result.append(isNegated ? nil : ranges[0].lowerBound)
      }
      return result
    }
  }

  package struct Parser {
    package let text: [Unicode.Scalar]
    package let dialect: Dialect
    package var at = 0

    package static let digits: [ClosedRange<Unicode.Scalar>] = ["0"..."9"]
    private static let asciiWord: [ClosedRange<Unicode.Scalar>] = ["0"..."9", "A"..."Z", "_"..."_", "a"..."z"]
    private static let unicodeWord = asciiWord + ["\u{80}"..."\u{10FFFF}"]

    package static func word(_ dialect: Dialect) -> [ClosedRange<Unicode.Scalar>] {
      dialect == .python ? unicodeWord : asciiWord
    }

    package static let space: [ClosedRange<Unicode.Scalar>] = ["\t"..."\r", " "..." "]
    package static let depthLimit = 64

    package var isAtEnd: Bool { at == text.count }

    package mutating func take(_ literal: String) -> Bool {
      guard text[at...].starts(with: literal.unicodeScalars) else { return false }
      at += literal.unicodeScalars.count
      return true
    }

    package mutating func alternatives(depth: Int) -> Tree? {
      guard depth <= Self.depthLimit else { return nil }
      var choices: [Tree] = []
      repeat {
        var parts: [Tree] = []
        while at < text.count, text[at] != "|", text[at] != ")" {
          guard let item = item(depth: depth), let part = quantified(item) else { return nil }
          parts.append(part)
        }
        choices.append(.sequence(parts))
      } while take("|")
      return choices.count == 1 ? choices[0] : .alternatives(choices)
    }

    private mutating func item(depth: Int) -> Tree? {
      if take("^") || dialect == .python && take("\\A") { return .start }
      if take("$") || dialect == .python && take("\\Z") { return .end }
      if take(".") {
        return .character(dialect == .python ? ["\n"..."\n"] : ["\n"..."\n", "\r"..."\r"], isNegated: true)
      }
      if take("[") { return set() }
      if dialect == .python && take("(?P<")
        ? skipName() : take("(?:") || !text[at...].starts(with: "(?".unicodeScalars) && take("(")
      {
        guard let inner = alternatives(depth: depth + 1), take(")") else { return nil }
        return inner
      }
      if take("\\") {
        guard at < text.count else { return nil }
        at += 1
        return escape(text[at - 1])
      }
      guard at < text.count, !"*+?{()".unicodeScalars.contains(text[at]) else { return nil }
      at += 1
      return .character([text[at - 1]...text[at - 1]], isNegated: false)
    }

    private mutating func skipName() -> Bool {
      while at < text.count, text[at] != ">" { at += 1 }
      return take(">")
    }

    private func escape(_ letter: Unicode.Scalar) -> Tree? {
      switch letter {
      case "d": return .character(Self.digits, isNegated: false)
      case "D": return .character(Self.digits, isNegated: true)
      case "w": return .character(Self.word(dialect), isNegated: false)
      case "W": return .character(Self.word(dialect), isNegated: true)
      case "s": return .character(Self.space, isNegated: false)
      case "S": return .character(Self.space, isNegated: true)
      case "b" where dialect == .ecmaScript: return .wordBoundary(isNegated: false)
      case "B" where dialect == .ecmaScript: return .wordBoundary(isNegated: true)
      default:
        return Self.isLiteral(letter) ? .character([letter...letter], isNegated: false) : nil
      }
    }

    /// Whether it stands for itself behind a backslash. Other letters and digits mean something that is not
    /// understood here.
    private static func isLiteral(_ letter: Unicode.Scalar) -> Bool {
      letter == "_" || !unicodeWord.contains { $0.contains(letter) }
    }

    private mutating func set() -> Tree? {
      let isNegated = take("^")
      var ranges: [ClosedRange<Unicode.Scalar>] = []
      var isFirst = true
      while at < text.count, isFirst || text[at] != "]" {
        // `[]` is a class of nothing in C++, and `[[:alpha:]]` a class by name.
        if dialect == .ecmaScript, isFirst && text[at] == "]" || text[at] == "[" { return nil }
        isFirst = false
        if let known = knownClass() {
          ranges += known
          // A class is no end of a range. Other dialects take the hyphen as it is.
          if dialect == .ecmaScript, at + 1 < text.count, text[at] == "-", text[at + 1] != "]" { return nil }
          continue
        }
        guard let low = member() else { return nil }
        guard at + 1 < text.count, text[at] == "-", text[at + 1] != "]" else {
          ranges.append(low...low)
          continue
        }
        at += 1
        guard let high = member(), high >= low else { return nil }
        ranges.append(low...high)
      }
      return take("]") && !ranges.isEmpty ? .character(ranges, isNegated: isNegated) : nil
    }

    private mutating func knownClass() -> [ClosedRange<Unicode.Scalar>]? {
      if take("\\d") { return Self.digits }
      if take("\\w") { return Self.word(dialect) }
      return take("\\s") ? Self.space : nil
    }

    /// One character of a set; nil for an escape that is not understood, such as `\D` or `\n`.
    private mutating func member() -> Unicode.Scalar? {
      at += 1
      guard text[at - 1] == "\\" else { return text[at - 1] }
      guard at < text.count, Self.isLiteral(text[at]) else { return nil }
      at += 1
      return text[at - 1]
    }

    private mutating func quantified(_ item: Tree) -> Tree? {
      if dialect == .ecmaScript, item.isAssertion { return at < text.count && isQuantifier(text[at]) ? nil : item }
      var result = item
      if take("*") {
        result = .repeated(item, 0, nil)
      } else if take("+") {
        result = .repeated(item, 1, nil)
      } else if take("?") {
        result = .repeated(item, 0, 1)
      } else if at < text.count, text[at] == "{" {
        guard let counts = counts() else { return nil }
        result = .repeated(item, counts.0, counts.1)
      } else {
        return item
      }
      // Lazy or not, the same paths match. A second quantifier is an error in Python.
      _ = take("?")
      return at < text.count && isQuantifier(text[at]) ? nil : result
    }

    private func isQuantifier(_ character: Unicode.Scalar) -> Bool { "*+?{".unicodeScalars.contains(character) }

    /// `{3}`, `{3,}`, `{3,5}`, and Python's `{,5}`.
    private mutating func counts() -> (Int, Int?)? {
      guard take("{") else { return nil }
      let least = number()
      if dialect == .ecmaScript, least == nil { return nil }
      guard take(",") else {
        guard let least, take("}") else { return nil }
        return (least, least)
      }
      let most = number()
      guard take("}"), (least ?? 0) <= (most ?? .max) else { return nil }
      return (least ?? 0, most)
    }

    private mutating func number() -> Int? {
      var value: Int?
      while at < text.count, Self.digits[0].contains(text[at]) {
        value = min((value ?? 0) * 10 + Int(text[at].value - 0x30), 100_000)
        at += 1
      }
      return value
    }
  }
}
