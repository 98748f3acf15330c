/// A pattern over bytes: `*` stands for any run of bytes, dots included, `?` for any one byte.
///
/// Matching takes time linear in the text for each `*`, never exponential: only the last `*` is ever
/// reconsidered.
public struct Glob: Sendable, Equatable {
  public let text: String
  private let pattern: [UInt8]

  public init(_ text: String) {
    self.text = text
    pattern = Array(text.utf8)
  }

  public static func == (left: Glob, right: Glob) -> Bool { left.pattern == right.pattern }

  public func matches(_ text: String) -> Bool { matches(Array(text.utf8)) }

  package func matches(_ text: [UInt8]) -> Bool {
    let star = UInt8(ascii: "*")
    var (at, here) = (0, 0)
    /// Where the last `*` stands, and where the text it has swallowed ends.
    var retry: (at: Int, here: Int)?
    while here < text.count {
      if at < pattern.count, pattern[at] == star {
        retry = (at, here)
        at += 1
      } else if at < pattern.count, pattern[at] == UInt8(ascii: "?") || pattern[at] == text[here] {
        at += 1
        here += 1
      } else if let last = retry {
        retry = (last.at, last.here + 1)
        (at, here) = (last.at + 1, last.here + 1)
      } else {
        return false
      }
    }
    return pattern[at...].allSatisfy { $0 == star }
  }
}
