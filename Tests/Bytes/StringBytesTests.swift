import Testing

@testable import Bytes

@Suite struct StringBytesTests {
  @Test(arguments: [
    ("", "", true), ("a", "", true), ("", "a", false), ("a", "a", true), ("a", "ab", false), ("xab", "ab", true),
    ("aab", "ab", true), ("aaab", "aab", true), ("abx", "ab", true), ("acb", "ab", false), ("a\0b", "\0b", true),
    // An accent behind a letter makes one character of both.
    ("e\u{301}", "e", true), ("blk.10.attn_q.weight", "attn_q.weight", true), ("attn_q.weigh", "attn_q.weight", false),
  ])
  func hasBytes(_ text: String, _ part: String, _ expected: Bool) {
    #expect(text.hasBytes(part) == expected)
  }
}
