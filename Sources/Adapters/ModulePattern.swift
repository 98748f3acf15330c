/// A pattern of `rank_pattern` or `alpha_pattern`: a regular expression in Python's syntax that a module's
/// path must end with, at a dot.
///
/// PEFT tries `(.*\.)?(PATTERN)$` with a backtracking engine, where `(a+)+` takes time exponential in the
/// path. Here all states that the text can have reached are followed at once, so a match takes time
/// proportional to text × pattern, whatever the pattern.
///
/// Literals, `.`, classes, `\d \w \s` and their opposites, groups, alternatives, `* + ? {m,n}` greedy or
/// lazy, `^` and `$`. Looking around and references back are not supported.
struct ModulePattern: Sendable {
  /// What a state needs before the next one is reached.
  private enum Node: Sendable {
    case byte([ClosedRange<UInt8>], isNegated: Bool)
    case split(Int, Int)
    case start
    case end
    case match
  }

  /// Repetitions are written out: `(a{100}){100}` would be a large program.
  static let stateLimit = 10_000
  static let lengthLimit = 4096

  private var nodes: [Node] = []

  /// nil for a pattern that is not understood or is too large.
  init?(_ text: String) {
    let bytes = Array(text.utf8)
    guard bytes.count <= Self.lengthLimit else { return nil }
    var parser = Parser(text: bytes)
    guard let tree = parser.alternatives(depth: 0), parser.isAtEnd else { return nil }
    // `(.*\.)?` in front: any start of the path that ends with a dot, or nothing.
    let anything = Tree.byte([0...9, 11...255], isNegated: false)
    let dot = Tree.byte([0x2E...0x2E], isNegated: false)
    let prefix = Tree.repeated(.sequence([.repeated(anything, 0, nil), dot]), 0, 1)
    guard emit(.sequence([prefix, tree, .end])) else { return nil }
    nodes.append(.match)
  }

  /// Whether the pattern stands for this module.
  func matches(_ path: String) -> Bool {
    let text = Array(path.utf8)
    var current = StateSet(nodes.count)
    var next = StateSet(nodes.count)
    add(0, to: &current, at: 0, of: text.count)
    for position in 0..<text.count {
      next.removeAll()
      for state in current.members {
        guard case .byte(let ranges, let isNegated) = nodes[state] else { continue }
        if ranges.contains(where: { $0.contains(text[position]) }) != isNegated {
          add(state + 1, to: &next, at: position + 1, of: text.count)
        }
      }
      swap(&current, &next)
    }
    return current.members.contains { if case .match = nodes[$0] { true } else { false } }
  }

  /// Adds a state and all that are reached from it without a byte.
  private func add(_ state: Int, to set: inout StateSet, at position: Int, of count: Int) {
    var pending = [state]
    while let state = pending.popLast() {
      guard set.insert(state) else { continue }
      switch nodes[state] {
      case .split(let one, let other): pending += [other, one]
      case .start where position == 0: pending.append(state + 1)
      case .end where position == count: pending.append(state + 1)
      case .start, .end, .byte, .match: break
      }
    }
  }

  /// Appends the states of a tree; the one after the last is where it leads. False when there are too many.
  private mutating func emit(_ tree: Tree) -> Bool {
    guard nodes.count < Self.stateLimit else { return false }
    switch tree {
    case .byte(let ranges, let isNegated): nodes.append(.byte(ranges, isNegated: isNegated))
    case .start: nodes.append(.start)
    case .end: nodes.append(.end)
    case .sequence(let parts):
      for part in parts { guard emit(part) else { return false } }
    case .alternatives(let choices):
      var jumps: [Int] = []
      for (index, choice) in choices.enumerated() {
        let isLast = index == choices.count - 1
        let branch = nodes.count
        if !isLast { nodes.append(.split(0, 0)) }
        guard emit(choice) else { return false }
        guard !isLast else { break }
        jumps.append(nodes.count)
        nodes.append(.split(0, 0))
        nodes[branch] = .split(branch + 1, nodes.count)
      }
      for jump in jumps { nodes[jump] = .split(nodes.count, nodes.count) }
    case .repeated(let inner, let least, let most):
      for _ in 0..<least {
        let before = nodes.count
        guard emit(inner) else { return false }
        // Nothing, however often repeated, is nothing.
        if nodes.count == before { break }
      }
      guard let most else {
        let branch = nodes.count
        nodes.append(.split(0, 0))
        guard emit(inner) else { return false }
        nodes.append(.split(branch, branch))
        nodes[branch] = .split(branch + 1, nodes.count)
        return true
      }
      var branches: [Int] = []
      for _ in least..<max(least, most) {
        branches.append(nodes.count)
        nodes.append(.split(0, 0))
        guard emit(inner) else { return false }
      }
      for branch in branches { nodes[branch] = .split(branch + 1, nodes.count) }
    }
    return true
  }

  /// States without repetition, emptied in time proportional to what is in it.
  private struct StateSet {
    private(set) var members: [Int] = []
    private var isMember: [Bool]

    init(_ count: Int) { isMember = Array(repeating: false, count: count) }

    mutating func insert(_ state: Int) -> Bool {
      if isMember[state] { return false }
      isMember[state] = true
      members.append(state)
      return true
    }

    mutating func removeAll() {
      for state in members { isMember[state] = false }
      members.removeAll(keepingCapacity: true)
    }
  }
}

extension ModulePattern {
  fileprivate indirect enum Tree {
    case byte([ClosedRange<UInt8>], isNegated: Bool)
    case start
    case end
    case sequence([Tree])
    case alternatives([Tree])
    case repeated(Tree, Int, Int?)
  }

  fileprivate struct Parser {
    let text: [UInt8]
    var at = 0

    static let digits: [ClosedRange<UInt8>] = [0x30...0x39]
    static let word: [ClosedRange<UInt8>] = [0x30...0x39, 0x41...0x5A, 0x5F...0x5F, 0x61...0x7A, 0x80...0xFF]
    static let space: [ClosedRange<UInt8>] = [0x09...0x0D, 0x20...0x20]
    static let depthLimit = 64

    var isAtEnd: Bool { at == text.count }

    mutating func take(_ literal: String) -> Bool {
      guard text[at...].starts(with: literal.utf8) else { return false }
      at += literal.utf8.count
      return true
    }

    mutating func alternatives(depth: Int) -> Tree? {
      guard depth <= Self.depthLimit else { return nil }
      var choices: [Tree] = []
      repeat {
        var parts: [Tree] = []
        while at < text.count, text[at] != UInt8(ascii: "|"), text[at] != UInt8(ascii: ")") {
          guard let item = item(depth: depth), let part = quantified(item) else { return nil }
          parts.append(part)
        }
        choices.append(.sequence(parts))
      } while take("|")
      return choices.count == 1 ? choices[0] : .alternatives(choices)
    }

    private mutating func item(depth: Int) -> Tree? {
      if take("^") || take("\\A") { return .start }
      if take("$") || take("\\Z") { return .end }
      if take(".") { return .byte([0x0A...0x0A], isNegated: true) }
      if take("[") { return set() }
      if take("(?:") || take("(?P<") && skipName() || !text[at...].starts(with: "(?".utf8) && take("(") {
        guard let inner = alternatives(depth: depth + 1), take(")") else { return nil }
        return inner
      }
      if take("\\") {
        guard at < text.count else { return nil }
        at += 1
        return escape(text[at - 1])
      }
      guard !"*+?{()".utf8.contains(text[at]) else { return nil }
      at += 1
      return .byte([text[at - 1]...text[at - 1]], isNegated: false)
    }

    private mutating func skipName() -> Bool {
      while at < text.count, text[at] != UInt8(ascii: ">") { at += 1 }
      return take(">")
    }

    private func escape(_ letter: UInt8) -> Tree? {
      switch letter {
      case UInt8(ascii: "d"): return .byte(Self.digits, isNegated: false)
      case UInt8(ascii: "D"): return .byte(Self.digits, isNegated: true)
      case UInt8(ascii: "w"): return .byte(Self.word, isNegated: false)
      case UInt8(ascii: "W"): return .byte(Self.word, isNegated: true)
      case UInt8(ascii: "s"): return .byte(Self.space, isNegated: false)
      case UInt8(ascii: "S"): return .byte(Self.space, isNegated: true)
      default:
        // Other letters and digits mean something that is not understood here.
        guard !Self.word.contains(where: { $0.contains(letter) }) || letter == UInt8(ascii: "_") else { return nil }
        return .byte([letter...letter], isNegated: false)
      }
    }

    private mutating func set() -> Tree? {
      let isNegated = take("^")
      var ranges: [ClosedRange<UInt8>] = []
      var isFirst = true
      while at < text.count, isFirst || text[at] != UInt8(ascii: "]") {
        isFirst = false
        guard let low = member(&ranges) else {
          if at < text.count || !ranges.isEmpty { continue }
          return nil
        }
        guard at + 1 < text.count, text[at] == UInt8(ascii: "-"), text[at + 1] != UInt8(ascii: "]") else {
          ranges.append(low...low)
          continue
        }
        at += 1
        guard let high = member(&ranges), high >= low else { return nil }
        ranges.append(low...high)
      }
      return take("]") && !ranges.isEmpty ? .byte(ranges, isNegated: isNegated) : nil
    }

    /// One byte of a set; nil after a class such as `\d`, which is added to the ranges.
    private mutating func member(_ ranges: inout [ClosedRange<UInt8>]) -> UInt8? {
      let byte = text[at]
      at += 1
      guard byte == UInt8(ascii: "\\"), at < text.count else { return byte }
      at += 1
      switch text[at - 1] {
      case UInt8(ascii: "d"): ranges += Self.digits
      case UInt8(ascii: "w"): ranges += Self.word
      case UInt8(ascii: "s"): ranges += Self.space
      default: return text[at - 1]
      }
      return nil
    }

    private mutating func quantified(_ item: Tree) -> Tree? {
      var result = item
      if take("*") {
        result = .repeated(item, 0, nil)
      } else if take("+") {
        result = .repeated(item, 1, nil)
      } else if take("?") {
        result = .repeated(item, 0, 1)
      } else if at < text.count, text[at] == UInt8(ascii: "{") {
        guard let counts = counts() else { return nil }
        result = .repeated(item, counts.0, counts.1)
      } else {
        return item
      }
      // Lazy or not, the same paths match. A second quantifier is an error in Python too.
      _ = take("?")
      return at < text.count && "*+?{".utf8.contains(text[at]) ? nil : result
    }

    /// `{3}`, `{3,}`, `{,5}`, `{3,5}`.
    private mutating func counts() -> (Int, Int?)? {
      guard take("{") else { return nil }
      let least = number()
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
        value = min((value ?? 0) * 10 + Int(text[at] - 0x30), 100_000)
        at += 1
      }
      return value
    }
  }
}
