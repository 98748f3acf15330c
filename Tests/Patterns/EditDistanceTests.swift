import Patterns
import Testing

@Suite struct EditDistanceTests {
  @Test(arguments: [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("q_proj", "q_prj", 1), ("ab", "ba", 1)])
  func distance(_ one: String, _ other: String, _ expected: Int) {
    #expect(EditDistance.between(Array(one.utf8), Array(other.utf8)) == expected)
    #expect(EditDistance.between(Array(other.utf8), Array(one.utf8)) == expected)
  }
}
