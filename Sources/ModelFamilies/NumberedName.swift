/// A tensor's name with its numbers taken out: `blk.3.attn_q.weight` is `blk.{layer}.attn_q.weight` of layer 3.
struct NumberedName {
  static let placeholders = ["{layer}", "{expert}"]

  let pattern: String
  /// The numbers of the layer, then of the expert.
  let numbers: [Int]

  /// Nil when a number is written as no program writes it (`007`), is too large, or there are more than two.
  init?(_ name: String) {
    var parts: [Substring] = []
    var numbers: [Int] = []
    for part in name.split(separator: ".", omittingEmptySubsequences: false) {
      guard !part.isEmpty, part.utf8.allSatisfy({ $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }) else {
        parts.append(part)
        continue
      }
      guard let number = Int(part), String(number) == part, numbers.count < Self.placeholders.count else { return nil }
      parts.append(Self.placeholders[numbers.count][...])
      numbers.append(number)
    }
    self.pattern = parts.joined(separator: ".")
    self.numbers = numbers
  }

  static func count(of pattern: String) -> Int {
    pattern.utf8.count { $0 == UInt8(ascii: "{") }
  }

  static func fill(_ pattern: String, layer: Int, expert: Int? = nil) -> String {
    pattern.split(separator: ".").map { part in
      switch part {
      case "{layer}": String(layer)
      case "{expert}": expert.map { String($0) } ?? String(part)
      default: String(part)
      }
    }.joined(separator: ".")
  }
}
