/// The parameters of one model class, as `Rules/contents.txt` says it.
struct ClassContents {
  enum Presence: Equatable {
    case required
    /// All of one group are there or none, number by number.
    case group(Int)
    case optional
  }

  struct Parameter {
    var presence: Presence
    var shape: [ConfiguredSize]
  }

  /// One of two groups is there, number by number.
  struct Choice {
    /// The path up to its last number.
    var container: [UInt8]
    var groups: (Int, Int)
  }

  /// By paths in which `*` stands for a whole number.
  private(set) var parameters: [[UInt8]: Parameter] = [:]
  /// Members of config.json that say how many numbers follow a path.
  private(set) var counts: [[UInt8]: String] = [:]
  private(set) var choices: [Choice] = []
  /// False where only the base model of the class is known, not its head.
  private(set) var isWhole = true

  /// nil when nothing is known of the class, nor of the base model in it.
  init?(architecture: String, rule: ClassRule, text: RuleText = .contents) {
    if let lines = text.lines(ofClass: Array(architecture.utf8)) {
      for line in lines { add(line, below: [], from: text) }
      return
    }
    guard let base = Self.base(of: architecture), let lines = text.lines(ofClass: Array(base.utf8)),
      !rule.prefix.isEmpty,
      let baseRule = ClassRule(architecture: base)
    else { return nil }
    let path = rule.prefix + [UInt8(ascii: ".")]
    // The same linear layers below the prefix: the same model.
    guard baseRule.kinds.allSatisfy({ $0.value == .last || rule.kinds[path + $0.key] == $0.value }) else { return nil }
    for line in lines { add(line, below: path, from: text) }
    isWhole = false
  }

  /// `LlamaModel` of `LlamaForSequenceClassification`.
  private static func base(of architecture: String) -> String? {
    guard let end = Array(architecture.utf8).firstOccurrence(of: Array("For".utf8)), end > 0 else { return nil }
    return String(decoding: architecture.utf8.prefix(end), as: UTF8.self) + "Model"
  }

  private mutating func add(_ line: ArraySlice<UInt8>, below base: [UInt8], from text: RuleText) {
    let words = line.words
    let dot = UInt8(ascii: ".")
    func path(_ word: ArraySlice<UInt8>) -> [UInt8] {
      if word.elementsEqual(".".utf8) { return Array(base.dropLast()) }
      return base + word
    }
    guard words.count > 2, let mark = words[0].first else { return }
    switch mark {
    case UInt8(ascii: "@"):
      let inner = path(words[2])
      for line in text.lines(ofBlock: Array(words[1])) {
        add(line, below: inner.isEmpty ? [] : inner + [dot], from: text)
      }
    case UInt8(ascii: "*"):
      counts[path(words[1])] = String(decoding: words[2], as: UTF8.self)
    case UInt8(ascii: "|"):
      guard words.count > 3, let first = words[2].number, let second = words[3].number else { return }
      choices.append(Choice(container: path(words[1]), groups: (first, second)))
    default:
      let container = path(words[1])
      let presence: Presence =
        switch mark {
        case UInt8(ascii: "!"): .required
        case UInt8(ascii: "="): words[0].dropFirst().number.map(Presence.group) ?? .optional
        default: .optional
        }
      let shape =
        words[2].elementsEqual("-".utf8) ? [] : words[2].split(separator: UInt8(ascii: ",")).map(ConfiguredSize.init)
      for name in words.dropFirst(3) {
        let whole = container.isEmpty ? Array(name) : container + [dot] + name
        parameters[whole] = Parameter(presence: presence, shape: shape)
      }
    }
  }
}

/// A dimension of a parameter by the configuration.
struct ConfiguredSize: Equatable {
  /// A small number that the members are multiplied with.
  private var factor = 1
  /// Members of config.json, with dots for members of members; empty when nothing is known.
  private(set) var members: [String] = []

  init(_ text: ArraySlice<UInt8>) {
    if text.elementsEqual("-".utf8) { return }
    for word in text.split(separator: UInt8(ascii: "*")) {
      if let number = word.number { factor = number } else { members.append(String(decoding: word, as: UTF8.self)) }
    }
  }

  /// nil where the configuration does not say.
  func value(_ member: (String) -> Int?) -> Int? {
    if members.isEmpty { return nil }
    var product = factor
    for name in members {
      guard let value = member(name), value >= 0 else { return nil }
      let (next, overflowed) = product.multipliedReportingOverflow(by: value)
      if overflowed { return nil }
      product = next
    }
    return product
  }

  /// `vocab_size`, `2 * intermediate_size`, `head_dim * num_attention_heads`.
  var text: String { ((factor == 1 ? [] : [String(factor)]) + members).joined(separator: " * ") }
}

extension ArraySlice<UInt8> {
  fileprivate var number: Int? { isNumber ? Int(String(decoding: self, as: UTF8.self)) : nil }
}
