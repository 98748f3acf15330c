/// `llm_int8_skip_modules` of a checkpoint, applied as transformers 5 applies it.
public struct SkipList: Sendable {
  private let matcher: SkipMatcher
  /// Entries that are regular expressions, which Nibble does not run.
  public let patterns: [String]

  public init(_ entries: [String]) {
    var matcher = SkipMatcher(target: .transformers5)
    var patterns: [String] = []
    for entry in entries {
      let path = Array(entry.utf8)
      if SkipMatcher.isPlain(path) { matcher.insert(path) } else { patterns.append(entry) }
    }
    self.matcher = matcher
    self.patterns = patterns
  }

  /// Whether a module stays in floating point.
  public func matches(_ module: String) -> Bool { matcher.matches(Array(module.utf8)) }
}
