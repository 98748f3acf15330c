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

  /// Empty when the pattern is literal.
  private var nodes: [Node] = []
  /// Of a pattern without anything but characters and dots, the way most are written: what a path must end with,
  /// nil for any character.
  private var literal: [Unicode.Scalar?]?

  /// How many states a match may have to follow at each character; 0 for a literal.
  var stateCount: Int { nodes.count }

  /// nil for a pattern that is not understood or is too large.
  init?(_ text: String) {
    guard text.utf8.count <= Self.lengthLimit else { return nil }
    var parser = Parser(text: Array(text.unicodeScalars))
    guard let tree = parser.alternatives(depth: 0), parser.isAtEnd else { return nil }
    literal = tree.literal
    if literal != nil { return }
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
    if let literal { return Self.ends(text, with: literal) }
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

  private static func ends(_ text: [Unicode.Scalar], with literal: [Unicode.Scalar?]) -> Bool {
    let start = text.count - literal.count
    guard start >= 0, start == 0 || text[start - 1] == "." && !text[..<start].contains("\n") else { return false }
    return zip(text[start...], literal).allSatisfy { found, wanted in wanted.map { $0 == found } ?? (found != "\n") }
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
