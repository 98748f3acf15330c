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
    case character([ClosedRange<Unicode.Scalar>], isNegated: Bool)
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
    guard text.utf8.count <= Self.lengthLimit else { return nil }
    var parser = Parser(text: Array(text.unicodeScalars))
    guard let tree = parser.alternatives(depth: 0), parser.isAtEnd else { return nil }
    // `(.*\.)?` in front: any start of the path that ends with a dot, or nothing.
    let anything = Tree.character(["\n"..."\n"], isNegated: true)
    let dot = Tree.character(["."..."."], isNegated: false)
    let prefix = Tree.repeated(.sequence([.repeated(anything, 0, nil), dot]), 0, 1)
    guard emit(.sequence([prefix, tree, .end])) else { return nil }
    nodes.append(.match)
  }

  /// Whether the pattern stands for this module.
  func matches(_ path: String) -> Bool {
    let text = Array(path.unicodeScalars)
    var current = StateSet(nodes.count)
    var next = StateSet(nodes.count)
    add(0, to: &current, at: 0, of: text.count)
    for position in 0..<text.count {
      next.removeAll()
      for state in current.members {
        guard case .character(let ranges, let isNegated) = nodes[state] else { continue }
        if ranges.contains(where: { $0.contains(text[position]) }) != isNegated {
          add(state + 1, to: &next, at: position + 1, of: text.count)
        }
      }
      swap(&current, &next)
    }
    return current.members.contains { if case .match = nodes[$0] { true } else { false } }
  }

  /// Adds a state and all that are reached from it without a character.
  private func add(_ state: Int, to set: inout StateSet, at position: Int, of count: Int) {
    var pending = [state]
    while let state = pending.popLast() {
      guard set.insert(state) else { continue }
      switch nodes[state] {
      case .split(let one, let other): pending += [other, one]
      case .start where position == 0: pending.append(state + 1)
      case .end where position == count: pending.append(state + 1)
      case .start, .end, .character, .match: break
      }
    }
  }

  /// Appends the states of a tree; the one after the last is where it leads. False when there are too many.
  private mutating func emit(_ tree: Tree) -> Bool {
    guard nodes.count < Self.stateLimit else { return false }
    switch tree {
    case .character(let ranges, let isNegated): nodes.append(.character(ranges, isNegated: isNegated))
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
    case character([ClosedRange<Unicode.Scalar>], isNegated: Bool)
    case start
    case end
    case sequence([Tree])
    case alternatives([Tree])
    case repeated(Tree, Int, Int?)
  }

  fileprivate struct Parser {
    let text: [Unicode.Scalar]
    var at = 0

    static let digits: [ClosedRange<Unicode.Scalar>] = ["0"..."9"]
    static let word: [ClosedRange<Unicode.Scalar>] = [
      "0"..."9", "A"..."Z", "_"..."_", "a"..."z", "\u{80}"..."\u{10FFFF}",
    ]
    static let space: [ClosedRange<Unicode.Scalar>] = ["\t"..."\r", " "..." "]
    static let depthLimit = 64

    var isAtEnd: Bool { at == text.count }

    mutating func take(_ literal: String) -> Bool {
      guard text[at...].starts(with: literal.unicodeScalars) else { return false }
      at += literal.unicodeScalars.count
      return true
    }

    mutating func alternatives(depth: Int) -> Tree? {
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
      if take("^") || take("\\A") { return .start }
      if take("$") || take("\\Z") { return .end }
      if take(".") { return .character(["\n"..."\n"], isNegated: true) }
      if take("[") { return set() }
      if take("(?P<") ? skipName() : take("(?:") || !text[at...].starts(with: "(?".unicodeScalars) && take("(") {
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
      case "w": return .character(Self.word, isNegated: false)
      case "W": return .character(Self.word, isNegated: true)
      case "s": return .character(Self.space, isNegated: false)
      case "S": return .character(Self.space, isNegated: true)
      default:
        return Self.isLiteral(letter) ? .character([letter...letter], isNegated: false) : nil
      }
    }

    /// Whether it stands for itself behind a backslash. Other letters and digits mean something that is not
    /// understood here.
    private static func isLiteral(_ letter: Unicode.Scalar) -> Bool {
      letter == "_" || !word.contains { $0.contains(letter) }
    }

    private mutating func set() -> Tree? {
      let isNegated = take("^")
      var ranges: [ClosedRange<Unicode.Scalar>] = []
      var isFirst = true
      while at < text.count, isFirst || text[at] != "]" {
        isFirst = false
        if let known = knownClass() {
          ranges += known
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
      if take("\\w") { return Self.word }
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
      // Lazy or not, the same paths match. A second quantifier is an error in Python too.
      _ = take("?")
      return at < text.count && "*+?{".unicodeScalars.contains(text[at]) ? nil : result
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
        value = min((value ?? 0) * 10 + Int(text[at].value - 0x30), 100_000)
        at += 1
      }
      return value
    }
  }
}
