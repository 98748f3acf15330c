/// The parameters of one model class, as `Rules/contents.txt` says it.
struct ClassContents {
  enum Presence: Equatable {
    case required
    /// In the numbers that these stand for; nil is any.
    case requiredAt([Int?])
    /// Required in every number but the first.
    case requiredAfterFirst
    /// All of one group are there or none, number by number.
    case group(Int)
    /// Required wherever one of a group is.
    case follows(Int)
    /// In every number of the path's first star or in none.
    case even
    case optional
  }

  struct Parameter {
    var presence: Presence
    /// Whether it may also be in no number at all; otherwise as `presence` says.
    var mayBeNowhere = false
    var shape: [ConfiguredSize]
  }

  /// One of two groups is there, number by number.
  struct Choice {
    /// The path up to its last number.
    var container: [UInt8]
    var groups: (Int, Int)
    /// Just where this parameter is.
    var beside: [UInt8]?
  }

  struct Switch {
    var member: String
    /// nil where it depends on more than the class.
    var isOnByDefault: Bool?
  }

  /// By paths in which `*` stands for a whole number.
  private(set) var parameters: [[UInt8]: Parameter] = [:]
  /// Members of config.json that say how many numbers follow a path.
  private(set) var counts: [[UInt8]: String] = [:]
  private(set) var choices: [Choice] = []
  /// The default sizes of members that are null or absent; the first that is known counts.
  private(set) var defaults: [String: [ConfiguredSize]] = [:]
  /// Biases that are there only where a member is true.
  private(set) var switches: [[UInt8]: Switch] = [:]
  /// Tied, whatever the configuration says.
  private(set) var alwaysTied: Set<[UInt8]> = []
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
    func whole(_ container: [UInt8], _ name: ArraySlice<UInt8>) -> [UInt8] {
      container.isEmpty ? Array(name) : container + [dot] + name
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
    case UInt8(ascii: "~"):
      defaults[String(decoding: words[1], as: UTF8.self)] = words.dropFirst(2).map(ConfiguredSize.init)
    case UInt8(ascii: "%"):
      let container = path(words[1])
      let parts = words[2].split(separator: UInt8(ascii: ":"))
      let member = String(decoding: parts[0], as: UTF8.self)
      for name in words.dropFirst(3) {
        switches[whole(container, name)] = Switch(member: member, isOnByDefault: parts.count > 1 ? false : nil)
      }
    case UInt8(ascii: "|"):
      guard words.count > 3, let first = words[2].number, let second = words[3].number else { return }
      let container = path(words[1])
      let beside = words.count > 4 ? whole(container, words[4]) : nil
      choices.append(Choice(container: container, groups: (first, second), beside: beside))
    case UInt8(ascii: "^"):
      let container = path(words[1])
      alwaysTied.formUnion(words.dropFirst(2).map { whole(container, $0) })
    default:
      let container = path(words[1])
      let mayBeNowhere = words[0].last == UInt8(ascii: "?")
      let places = mayBeNowhere ? words[0].dropFirst().dropLast() : words[0].dropFirst()
      let presence: Presence =
        switch mark {
        case UInt8(ascii: "!") where places.elementsEqual("1+".utf8): .requiredAfterFirst
        case UInt8(ascii: "!") where !places.isEmpty: .requiredAt(places.split(separator: dot).map(\.number))
        case UInt8(ascii: "!"): .required
        case UInt8(ascii: "+"): .even
        case UInt8(ascii: "="): places.number.map(Presence.group) ?? .optional
        case UInt8(ascii: ">"): places.number.map(Presence.follows) ?? .optional
        default: .optional
        }
      let shape =
        words[2].elementsEqual("-".utf8) ? [] : words[2].split(separator: UInt8(ascii: ",")).map(ConfiguredSize.init)
      for name in words.dropFirst(3) {
        parameters[whole(container, name)] = Parameter(presence: presence, mayBeNowhere: mayBeNowhere, shape: shape)
      }
    }
  }
}

extension ArraySlice<UInt8> {
  fileprivate var number: Int? { isNumber ? Int(String(decoding: self, as: UTF8.self)) : nil }
}
