import Bytes
import JSON

/// How a text is cut into words before its bytes are merged: one row for each way that llama.cpp knows by name.
///
/// A row is right when llama.cpp's expressions for the name (`src/llama-vocab.cpp`) cut as those of the row do.
struct PreTokenizer: Sendable {
  enum Stage: Sendable, Hashable {
    case split(String)
    /// Each digit for itself.
    case digits
    /// Bytes to characters, after GPT-2's expression or as they are.
    case byteLevel(usesExpression: Bool)
  }

  let name: String
  let stages: [Stage]
  /// Words that are tokens are taken whole; nil where a name says nothing of it.
  var ignoresMerges: Bool?
  /// Families whose files are cut like this under this name; empty for every other.
  var modelTypes: [String] = []

  // MARK: - The table

  static let gpt2 = #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#
  static let cl100k = words(digits: #"\p{N}{1,3}"#)
  static let qwen2 = words(digits: #"\p{N}"#)
  static let tekken = cased(suffix: "", digits: #"\p{N}"#)
  static let o200k = cased(suffix: "(?i:'s|'t|'re|'ve|'m|'ll|'d)?", digits: #"\p{N}{1,3}"#)

  private static func words(digits: String) -> String {
    #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"# + digits
      + #"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
  }

  private static func cased(suffix: String, digits: String) -> String {
    let upper = #"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"#
    let lower = #"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"#
    let lead = #"[^\r\n\p{L}\p{N}]?"#
    return lead + upper + "*" + lower + "+" + suffix + "|" + lead + upper + "+" + lower + "*" + suffix + "|" + digits
      + #"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
  }

  private static let deepSeek3 =
    ##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"##
    + #"|\s*[\r\n]+|\s+(?!\S)|\s+"#

  private static let bytes = Stage.byteLevel(usesExpression: false)

  /// The first row that fits counts.
  static let table: [PreTokenizer] = [
    PreTokenizer(name: "smaug-bpe", stages: [.split(cl100k), bytes], modelTypes: ["smollm3"]),
    PreTokenizer(name: "llama-bpe", stages: [.split(cl100k), bytes], ignoresMerges: true),
    PreTokenizer(name: "smaug-bpe", stages: [.split(cl100k), bytes], ignoresMerges: false, modelTypes: ["llama"]),
    PreTokenizer(name: "dbrx", stages: [.split(cl100k), bytes], ignoresMerges: false),
    PreTokenizer(name: "qwen2", stages: [.split(qwen2), bytes]),
    PreTokenizer(name: "tekken", stages: [.split(tekken), bytes], ignoresMerges: true),
    PreTokenizer(name: "gpt-4o", stages: [.split(o200k), bytes]),
    PreTokenizer(name: "gpt-2", stages: [.byteLevel(usesExpression: true)]),
    PreTokenizer(name: "gpt-2", stages: [.split(gpt2), bytes]),
    PreTokenizer(
      name: "smollm", stages: [.digits, .byteLevel(usesExpression: true)], modelTypes: ["llama", "smollm3"]),
    PreTokenizer(name: "refact", stages: [.digits, .byteLevel(usesExpression: true)], modelTypes: ["granite"]),
    PreTokenizer(name: "starcoder", stages: [.digits, .byteLevel(usesExpression: true)]),
    PreTokenizer(
      name: "deepseek-coder",
      stages: [
        .split("[\r\n]"), .split(#"\s?\p{L}+"#), .split(#"\s?\p{P}+"#), .split("[一-龥ࠀ-一가-퟿]+"), .digits, bytes,
      ]),
    PreTokenizer(
      name: "deepseek-v3",
      stages: [.split(#"\p{N}{1,3}"#), .split("[一-龥぀-ゟ゠-ヿ]+"), .split(deepSeek3), bytes]),
  ]

  /// Expressions that leave no character out, so that it is the same whether the matches are cut out or kept.
  private static let whole: Set<String> = [gpt2, cl100k, qwen2, tekken, o200k]

  /// Names that llama.cpp cuts like one of the table's: their vocabularies differ.
  private static let namesakes: [String: [String]] = [
    "gpt-2": [
      "phi-2", "gigachat", "a.x-4.0", "mellum", "exaone4", "mpt", "olmo", "jais", "trillion", "granite-docling",
    ],
    "llama-bpe": ["llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
    "qwen2": [
      "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2",
    ],
    "starcoder": ["command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
    "gpt-4o": ["llama4", "kanana2", "minimax-m2", "talkie"],
    "deepseek-v3": ["hunyuan-dense", "joyai-llm", "hy_v4"],
  ]

  /// The row for a name of `tokenizer.ggml.pre`.
  static func named(_ name: String) -> PreTokenizer? {
    let row = namesakes.first { $0.value.contains(name) }?.key ?? name
    return table.first { $0.name == row }
  }

  /// Whether llama.cpp begins a text with a token where the file does not say.
  var beginsText: Bool { ["llama-bpe", "tekken"].contains(name) }

  /// Qwen's own files compose characters, which llama.cpp does not.
  var composes: Bool { name == "qwen2" }

  var json: JSONValue {
    let parts = stages.map(\.json)
    return parts.count == 1 ? parts[0] : ["type": "Sequence", "pretokenizers": .array(parts)]
  }

  // MARK: - Recognition

  /// - Throws: `unsupported` for a way that llama.cpp has no name for, with what it is.
  static func recognized(_ file: TokenizerFile, modelType: String) throws(Failure) -> PreTokenizer {
    func refused(_ what: String) -> Failure {
      Failure(.unsupported, "llama.cpp has no name for \(what)", file: TokenizerFile.file)
    }
    let json = file.preTokenizer
    let shown = json.text(.compact).printable(limit: 1024)
    var stages: [Stage] = []
    for part in json["pretokenizers"]?.array ?? [json] {
      guard let stage = Stage(part) else { throw refused("the pre-tokenizer \(shown)") }
      stages.append(stage)
    }
    let normalizer = file.normalizer
    guard normalizer.isNull || normalizer["type"] == "NFC" || normalizer["normalizers"]?.array?.isEmpty == true else {
      throw refused("the normalizer \(normalizer.text(.compact).printable(limit: 1024)) of byte-level BPE")
    }
    let ignoresMerges = file.options["ignore_merges"]?.bool ?? false
    let row = table.first { row in
      row.stages.elementsEqual(stages, by: Stage.haveSameBytes)
        && (row.ignoresMerges ?? ignoresMerges) == ignoresMerges
        && (row.modelTypes.isEmpty || row.modelTypes.contains(modelType))
    }
    guard let row else { throw refused("the pre-tokenizer \(shown)") }
    return row
  }
}

extension PreTokenizer.Stage {
  init?(_ json: JSONValue) {
    switch json["type"]?.string {
    case "Split":
      guard let pattern = json["pattern"]?["Regex"]?.string else { return nil }
      switch (json["behavior"]?.string, json["invert"]?.bool ?? false) {
      case ("Isolated", false): self = .split(pattern)
      case ("Removed", true) where PreTokenizer.isWhole(pattern): self = .split(pattern)
      default: return nil
      }
    case "Digits":
      guard json["individual_digits"]?.bool == true else { return nil }
      self = .digits
    case "ByteLevel":
      guard json["add_prefix_space"]?.bool == false else { return nil }
      self = .byteLevel(usesExpression: json["use_regex"]?.bool ?? true)
    default: return nil
    }
  }

  var json: JSONValue {
    switch self {
    case .split(let pattern):
      ["type": "Split", "pattern": ["Regex": .string(pattern)], "behavior": "Isolated", "invert": false]
    case .digits: ["type": "Digits", "individual_digits": true]
    case .byteLevel(let usesExpression):
      ["type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": .bool(usesExpression)]
    }
  }

  /// Swift's strings compare by canonical equivalence, which expressions do not share.
  static func haveSameBytes(_ left: Self, _ right: Self) -> Bool {
    if case .split(let one) = left, case .split(let other) = right {
      one.utf8.elementsEqual(other.utf8)
    } else {
      left == right
    }
  }
}

extension PreTokenizer {
  fileprivate static func isWhole(_ pattern: String) -> Bool { whole.contains { $0.utf8.elementsEqual(pattern.utf8) } }
}
