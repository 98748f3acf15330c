/// A regular expression over the bytes of a tensor name: the part of Python's syntax that transformers'
/// renamings use.
///
/// Literals, `.`, `\d`, `\w`, `[0-9]`, `^`, `+`, `*`, `(…)`, `(?:…)`, alternatives, and looking ahead or
/// behind, positively or not. Quantifiers are greedy and stand behind a single item. Bytes of other than
/// ASCII characters count as word characters.
struct NamePattern: Sendable {
  indirect enum Item: Sendable {
    case byte(UInt8)
    case oneOf([ClosedRange<UInt8>])
    case start
    case group([[Item]], number: Int?)
    case look([[Item]], behind: Bool, negative: Bool)
    case repeated(Item, atLeast: Int)
  }

  private let alternatives: [[Item]]
  /// Bytes that every match contains, in a row; found faster than the pattern.
  private let required: [UInt8]

  /// nil when the text uses what is not supported.
  init?(_ text: some Sequence<UInt8>) {
    var parser = Parser(text: Array(text))
    guard let parsed = parser.alternatives(), parser.isAtEnd else { return nil }
    alternatives = parsed
    required = parsed.count == 1 ? Self.longestRun(parsed[0]) : []
  }

  /// False when no part of `text` can match.
  func mayMatch(_ text: [UInt8]) -> Bool { required.isEmpty || text.firstOccurrence(of: required) != nil }

  private static func longestRun(_ items: [Item]) -> [UInt8] {
    var (longest, run): ([UInt8], [UInt8]) = ([], [])
    for item in items {
      if case .byte(let byte) = item { run.append(byte) } else { run = [] }
      if run.count > longest.count { longest = run }
    }
    return longest
  }

  struct Match {
    var range: Range<Int>
    /// The bytes that the first group matched.
    var group: Range<Int>?
  }

  /// A match that starts at `position` exactly.
  func match(_ text: [UInt8], at position: Int) -> Match? {
    var matcher = Matcher(text: text)
    var end = 0
    guard
      matcher.any(
        of: alternatives, at: position,
        then: { _, stop in
          end = stop
          return true
        })
    else { return nil }
    return Match(range: position..<end, group: matcher.group)
  }
}

extension NamePattern {
  private static let word: [ClosedRange<UInt8>] = [0x30...0x39, 0x41...0x5A, 0x5F...0x5F, 0x61...0x7A, 0x80...0xFF]
  private static let digit: [ClosedRange<UInt8>] = [0x30...0x39]
  /// Everything but the line feed.
  private static let anything: [ClosedRange<UInt8>] = [0x00...0x09, 0x0B...0xFF]

  private struct Parser {
    let text: [UInt8]
    var at = 0
    var groups = 0

    var isAtEnd: Bool { at == text.count }

    mutating func take(_ literal: String) -> Bool {
      guard text[at...].starts(with: literal.utf8) else { return false }
      at += literal.utf8.count
      return true
    }

    mutating func alternatives() -> [[Item]]? {
      var all: [[Item]] = [[]]
      while at < text.count, text[at] != UInt8(ascii: ")") {
        if take("|") {
          all.append([])
          continue
        }
        guard var item = item() else { return nil }
        if take("+") { item = .repeated(item, atLeast: 1) } else if take("*") { item = .repeated(item, atLeast: 0) }
        all[all.count - 1].append(item)
      }
      return all
    }

    private mutating func item() -> Item? {
      if take("^") { return .start }
      if take(".") { return .oneOf(anything) }
      if take("\\d") { return .oneOf(digit) }
      if take("\\w") { return .oneOf(word) }
      if take("[") { return set() }
      if take("(?<!") { return enclosed { .look($0, behind: true, negative: true) } }
      if take("(?<=") { return enclosed { .look($0, behind: true, negative: false) } }
      if take("(?!") { return enclosed { .look($0, behind: false, negative: true) } }
      if take("(?=") { return enclosed { .look($0, behind: false, negative: false) } }
      if take("(?:") { return enclosed { .group($0, number: nil) } }
      if take("(?") { return nil }
      if take("(") {
        groups += 1
        let number = groups
        return enclosed { .group($0, number: number) }
      }
      if take("\\") {
        // Only punctuation may be escaped: a letter would be a class that is not known here.
        guard at < text.count, !word.contains(where: { $0.contains(text[at]) }) else { return nil }
      } else if "*+?{}$]".utf8.contains(text[at]) {
        return nil
      }
      at += 1
      return .byte(text[at - 1])
    }

    private mutating func enclosed(_ make: ([[Item]]) -> Item) -> Item? {
      guard let inner = alternatives(), take(")") else { return nil }
      return make(inner)
    }

    private mutating func set() -> Item? {
      var ranges: [ClosedRange<UInt8>] = []
      while at < text.count, text[at] != UInt8(ascii: "]") {
        let low = text[at]
        at += 1
        var high = low
        if take("-") {
          guard at < text.count, text[at] >= low else { return nil }
          high = text[at]
          at += 1
        }
        ranges.append(low...high)
      }
      return take("]") && !ranges.isEmpty ? .oneOf(ranges) : nil
    }
  }

  /// Backtracking with continuations: `then` is what must match behind.
  private struct Matcher {
    let text: [UInt8]
    var group: Range<Int>?

    typealias Continuation = (inout Matcher, Int) -> Bool

    mutating func any(of alternatives: [[Item]], at position: Int, then: Continuation) -> Bool {
      for items in alternatives where all(of: items[...], at: position, then: then) { return true }
      return false
    }

    private mutating func all(of items: ArraySlice<Item>, at position: Int, then: Continuation) -> Bool {
      guard let item = items.first else { return then(&self, position) }
      let rest = items.dropFirst()
      return one(item, at: position) { matcher, next in matcher.all(of: rest, at: next, then: then) }
    }

    private mutating func one(_ item: Item, at position: Int, then: Continuation) -> Bool {
      switch item {
      case .byte(let byte):
        return position < text.count && text[position] == byte && then(&self, position + 1)
      case .oneOf(let ranges):
        guard position < text.count, ranges.contains(where: { $0.contains(text[position]) }) else { return false }
        return then(&self, position + 1)
      case .start:
        return position == 0 && then(&self, position)
      case .group(let inner, let number):
        return any(of: inner, at: position) { matcher, end in
          let before = matcher.group
          if number == 1 { matcher.group = position..<end }
          if then(&matcher, end) { return true }
          matcher.group = before
          return false
        }
      case .look(let inner, let behind, let negative):
        return looks(inner, at: position, behind: behind) != negative && then(&self, position)
      case .repeated(let inner, let atLeast):
        return repeated(inner, atLeast: atLeast, at: position, then: then)
      }
    }

    /// Greedy, for items that take exactly one byte.
    private mutating func repeated(_ item: Item, atLeast: Int, at position: Int, then: Continuation) -> Bool {
      var end = position
      while one(item, at: end, then: { _, _ in true }) { end += 1 }
      while end >= position + atLeast {
        if then(&self, end) { return true }
        end -= 1
      }
      return false
    }

    private mutating func looks(_ inner: [[Item]], at position: Int, behind: Bool) -> Bool {
      if !behind { return any(of: inner, at: position) { _, _ in true } }
      // Some start further left from which the text up to here matches.
      return (0...position).reversed().contains { start in
        any(of: inner, at: start) { _, end in end == position }
      }
    }
  }
}
