import Patterns

/// A pattern of `rank_pattern` or `alpha_pattern`: a regular expression in Python's syntax that a module's
/// path must end with, at a dot.
///
/// PEFT tries `(.*\.)?(PATTERN)$` with a backtracking engine; here it is followed in linear time.
struct ModulePattern: Sendable {
  static let lengthLimit = LinearPattern.lengthLimit

  private enum Form: Sendable {
    /// A pattern of only characters and dots, as most are: the characters that a path must end with, nil for any
    /// character.
    case literal([Unicode.Scalar?])
    case pattern(LinearPattern)
  }

  private let form: Form

  /// How many states a match may have to follow at each character; 0 for a literal.
  var stateCount: Int { if case .pattern(let pattern) = form { pattern.stateCount } else { 0 } }

  /// nil for a pattern that is not understood or is too large.
  init?(_ text: String) {
    guard let tree = LinearPattern.parse(text, .python) else { return nil }
    if let literal = tree.literal {
      form = .literal(literal)
      return
    }
    // `(.*\.)?` in front: any start of the path that ends with a dot, or nothing.
    let anything = LinearPattern.Tree.character(["\n"..."\n"], isNegated: true)
    let dot = LinearPattern.Tree.character(["."..."."], isNegated: false)
    let prefix = LinearPattern.Tree.repeated(.sequence([.repeated(anything, 0, nil), dot]), 0, 1)
    guard let pattern = LinearPattern(.sequence([prefix, tree, .end]), .python) else { return nil }
    form = .pattern(pattern)
  }

  /// Whether the pattern stands for this module.
  func matches(_ path: String) -> Bool {
    switch form {
    case .literal(let literal): Self.ends(Array(path.unicodeScalars), with: literal)
    case .pattern(let pattern): pattern.matches(path)
    }
  }

  private static func ends(_ text: [Unicode.Scalar], with literal: [Unicode.Scalar?]) -> Bool {
    let start = text.count - literal.count
    guard start >= 0, start == 0 || text[start - 1] == "." && !text[..<start].contains("\n") else { return false }
    return zip(text[start...], literal).allSatisfy { found, wanted in wanted.map { $0 == found } ?? (found != "\n") }
  }
}
