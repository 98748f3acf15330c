import Bytes
import TestSupport
import Testing

@Suite struct KeyOrderTests {
  @Test func ordersByBytes() {
    let keys = ["b", "a", "", "aa", "Z", "é", "e\u{301}", "\u{10000}", "\u{ffff}", "a\0"]
    let order = KeyOrder(keys)
    let sorted = order.positions.map { Array(keys[Int($0)].utf8) }
    for (left, right) in zip(sorted, sorted.dropFirst()) { #expect(left.lexicographicallyPrecedes(right)) }
    for (index, key) in keys.enumerated() { #expect(order.position(of: key) { keys[$0] } == index) }
    #expect(order.position(of: "c") { keys[$0] } == nil)
    #expect(order.position(of: "\u{e9}\u{301}") { keys[$0] } == nil)
    #expect(order.firstDuplicate == nil)
  }

  @Test func findsTheEarliestDuplicate() throws {
    let keys = ["x", "b", "a", "b", "a", "b"]
    let found = try #require(KeyOrder(keys).firstDuplicate)
    #expect(found == (1, 3))
  }

  @Test func agreesWithArraysOfBytes() {
    var generator = SplitMix64(seed: 7)
    let keys = (0..<500).map { _ in
      String(
        (0..<Int.random(in: 0...3, using: &generator)).map { _ in "abé\u{301}€".randomElement(using: &generator) ?? "a"
        })
    }
    let order = KeyOrder(keys)
    let expected = keys.indices.sorted { left, right in
      let (one, other) = (Array(keys[left].utf8), Array(keys[right].utf8))
      return one == other ? left < right : one.lexicographicallyPrecedes(other)
    }
    #expect(order.positions.map { Int($0) } == expected)
  }

  /// Names that agree in more bytes than a machine word holds, and some that end early.
  @Test(arguments: ["", "model.layers.", "\u{e9}"]) func longSharedBeginnings(_ beginning: String) {
    var generator = SplitMix64(seed: 11)
    let keys = (0..<300).map { _ in
      beginning + String(repeating: "x", count: Int.random(in: 0...20, using: &generator))
        + ["", "\0", "\0\0", "y", "\u{301}"][Int.random(in: 0..<5, using: &generator)]
    }
    let order = KeyOrder(keys)
    let sorted = order.positions.map { Array(keys[Int($0)].utf8) }
    for (left, right) in zip(sorted, sorted.dropFirst()) { #expect(!right.lexicographicallyPrecedes(left)) }
    var seen: [[UInt8]] = []
    let second = keys.firstIndex { key in
      defer { seen.append(Array(key.utf8)) }
      return seen.contains(Array(key.utf8))
    }
    #expect(order.firstDuplicate?.second == second)
    for key in keys { #expect(order.position(of: key) { keys[$0] }.map { Array(keys[$0].utf8) } == Array(key.utf8)) }
  }

  @Test func followsMovedNames() {
    let keys = ["c", "a", "b"]
    let order = KeyOrder(keys).moved(to: [2, 0, 1])
    #expect(order.positions == [0, 1, 2])
  }

  @Test func isEmpty() {
    #expect(KeyOrder([]).position(of: "") { _ in "" } == nil)
    #expect(KeyOrder([]).firstDuplicate == nil)
  }
}
