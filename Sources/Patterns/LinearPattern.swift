/// A regular expression that is matched in time proportional to text × pattern, whatever the pattern.
///
/// A backtracking engine takes time exponential in the text for `(a+)+`. Here all states that the text can have
/// reached are followed at once.
///
/// Literals, `.`, classes, `\d \w \s` and their opposites, groups, alternatives, `* + ? {m,n}` greedy or lazy, `^`
/// and `$`. Looking around and references back are not supported.
package struct LinearPattern: Sendable {
  /// The syntax that a pattern is written in.
  package enum Dialect: Sendable {
    /// The syntax of Python's `re`, over Unicode scalars.
    case python
    /// The syntax of C++'s `std::regex` in its C locale, over bytes; with `\b` and `\B`.
    case ecmaScript
  }

  /// A state of the automaton, with the condition for leaving it.
  private enum Node: Sendable {
    case character([ClosedRange<Unicode.Scalar>], isNegated: Bool)
    case split(Int, Int)
    case start
    case end
    case wordBoundary(isNegated: Bool)
    case match
  }

  /// Repetitions are written out: `(a{100}){100}` would be a large program.
  package static let stateLimit = 10_000
  package static let lengthLimit = 4096

  private let dialect: Dialect
  private var nodes: [Node] = []

  /// How many states a match may have to follow at each character.
  package var stateCount: Int { nodes.count }

  /// The syntax tree of a pattern; nil for one that is not understood or is too long.
  package static func parse(_ text: String, _ dialect: Dialect) -> Tree? {
    guard text.utf8.count <= lengthLimit else { return nil }
    var parser = Parser(text: characters(text, dialect), dialect: dialect)
    guard let tree = parser.alternatives(depth: 0), parser.isAtEnd else { return nil }
    return tree
  }

  /// nil when it is too large.
  package init?(_ tree: Tree, _ dialect: Dialect) {
    self.dialect = dialect
    guard emit(tree) else { return nil }
    nodes.append(.match)
  }

  /// A pattern that is to be found anywhere in a text; nil for one that is not understood or is too large.
  package init?(searching text: String, _ dialect: Dialect) {
    guard let tree = Self.parse(text, dialect) else { return nil }
    self.init(.sequence([.repeated(.character([], isNegated: true), 0, nil), tree]), dialect)
  }

  /// Whether a beginning of the text is what the pattern stands for.
  package func matches(_ text: String) -> Bool {
    let text = Self.characters(text, dialect)
    var current = StateSet(nodes.count)
    var next = StateSet(nodes.count)
    add(0, to: &current, at: 0, of: text)
    for position in 0..<text.count {
      if current.contains(nodes.count - 1) { return true }
      next.removeAll()
      for state in current.members {
        guard case .character(let ranges, let isNegated) = nodes[state] else { continue }
        if ranges.contains(where: { $0.contains(text[position]) }) != isNegated {
          add(state + 1, to: &next, at: position + 1, of: text)
        }
      }
      swap(&current, &next)
    }
    return current.contains(nodes.count - 1)
  }

  private static func characters(_ text: String, _ dialect: Dialect) -> [Unicode.Scalar] {
    switch dialect {
    case .python: Array(text.unicodeScalars)
    case .ecmaScript: text.utf8.map { Unicode.Scalar($0) }
    }
  }

  private func isWordBoundary(_ position: Int, _ text: [Unicode.Scalar]) -> Bool {
    func isWord(_ index: Int) -> Bool {
      text.indices.contains(index) && Parser.word(dialect).contains { $0.contains(text[index]) }
    }
    return isWord(position - 1) != isWord(position)
  }

  /// Adds a state and all that are reached from it without a character.
  private func add(_ state: Int, to set: inout StateSet, at position: Int, of text: [Unicode.Scalar]) {
    var pending = [state]
    while let state = pending.popLast() {
      guard set.insert(state) else { continue }
      switch nodes[state] {
      case .split(let one, let other): pending += [other, one]
      case .start where position == 0: pending.append(state + 1)
      case .end where position == text.count: pending.append(state + 1)
      case .wordBoundary(let isNegated) where isWordBoundary(position, text) != isNegated: pending.append(state + 1)
      case .start, .end, .wordBoundary, .character, .match: break
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
    case .wordBoundary(let isNegated): nodes.append(.wordBoundary(isNegated: isNegated))
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

    func contains(_ state: Int) -> Bool { isMember[state] }

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
