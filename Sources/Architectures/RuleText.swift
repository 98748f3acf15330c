import ArchitectureRules

/// The text of `Rules/rules.txt` or `Rules/contents.txt`: sections that begin with a line in brackets.
///
/// The file is ours, compiled into the binary; what does not parse is left out, and the tests see to it
/// that nothing does.
struct RuleText: Sendable {
  private let bytes: [UInt8]
  private var blocks: [[UInt8]: Range<Int>] = [:]
  private var names: [[UInt8]: Range<Int>] = [:]
  private var classes: [[UInt8]: Range<Int>] = [:]

  static let embedded: RuleText = {
    var count = 0
    let start = unsafe nibble_rules(&count)
    return unsafe RuleText(bytes: Array(UnsafeBufferPointer(start: start, count: count)))
  }()

  /// Which parameters the classes have.
  static let contents: RuleText = {
    var count = 0
    let start = unsafe nibble_contents(&count)
    return unsafe RuleText(bytes: Array(UnsafeBufferPointer(start: start, count: count)))
  }()

  init(bytes: [UInt8]) {
    self.bytes = bytes
    let newline = UInt8(ascii: "\n")
    var heads: [Range<Int>] = []
    var at = 0
    while at < bytes.count {
      let end = bytes[at...].firstIndex(of: newline) ?? bytes.count
      if bytes[at] == UInt8(ascii: "[") { heads.append(at..<end) }
      at = end + 1
    }
    for (head, next) in zip(heads, heads.dropFirst().map(\.lowerBound) + [bytes.count]) {
      let words = bytes[head].dropFirst().dropLast().words
      let body = min(head.upperBound + 1, bytes.count)..<next
      for name in words.dropFirst().map(Array.init) {
        switch words[0].first {
        case UInt8(ascii: "b"): blocks[name] = body
        case UInt8(ascii: "n"): names[name] = body
        default: classes[name] = body
        }
      }
    }
  }

  /// Every class that has a rule, sorted by bytes.
  var classNames: [[UInt8]] { classes.keys.sorted { $0.lexicographicallyPrecedes($1) } }

  var renamingListCount: Int { names.count }

  func lines(ofClass name: [UInt8]) -> [ArraySlice<UInt8>]? { classes[name].map(lines) }

  func lines(ofBlock number: [UInt8]) -> [ArraySlice<UInt8>] { blocks[number].map(lines) ?? [] }

  private func lines(_ range: Range<Int>) -> [ArraySlice<UInt8>] {
    bytes[range].split(separator: UInt8(ascii: "\n"))
  }

  /// The renamings of one list, in order; nil when one cannot be read.
  ///
  /// - Parameter scope: the path they are confined to, `.` for the base model.
  func renamings(_ number: [UInt8], scope: ArraySlice<UInt8>?) -> [Renaming]? {
    guard let range = names[number] else { return nil }
    let path = scope.map { $0.elementsEqual(".".utf8) ? [] : Array($0) }
    let parsed = lines(range).map { Renaming(line: $0, scope: path) }
    return parsed.contains { $0 == nil } ? nil : parsed.compactMap(\.self)
  }
}

extension Renaming {
  /// `KIND PATTERN… => TARGET…`
  fileprivate init?(line: ArraySlice<UInt8>, scope: [UInt8]?) {
    var words = line.words[...]
    guard let letter = words.popFirst()?.first else { return nil }
    switch letter {
    case UInt8(ascii: "r"): kind = .rename
    case UInt8(ascii: "g"): kind = .pairs
    case UInt8(ascii: "c"): kind = .conversion
    default:
      guard let step = words.popFirst(), let number = Int(String(decoding: step, as: UTF8.self)) else { return nil }
      kind = .shift(number)
    }
    guard let arrow = words.firstIndex(where: { $0.elementsEqual("=>".utf8) }) else { return nil }
    self.scope = scope
    let parsed = words[..<arrow].map { NamePattern($0) }
    patterns = parsed.compactMap(\.self)
    // A target may be empty: the part of the name is removed.
    let after = words[(arrow + 1)...].map(Array.init)
    targets = after.isEmpty ? [[]] : after
    if patterns.count != parsed.count || patterns.isEmpty { return nil }
  }
}

extension ArraySlice<UInt8> {
  package var words: [ArraySlice<UInt8>] { split(separator: UInt8(ascii: " ")) }
}
