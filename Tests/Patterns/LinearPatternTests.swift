import Patterns
import Testing

@Suite struct LinearPatternTests {
  @Test func searches() {
    #expect(LinearPattern(searching: "attn_q", .ecmaScript)?.matches("blk.0.attn_q.weight") == true)
  }
}
