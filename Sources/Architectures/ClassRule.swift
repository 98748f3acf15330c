/// The kind of a module or parameter of a model class, as `Rules/rules.txt` gives it.
enum ModuleKind: UInt8, Sendable {
  case linear = 0x4C  // L
  case conv1D = 0x43  // C
  case outputEmbedding = 0x6F  // o
  case tied = 0x74  // t: quantized unless the embeddings are tied
  case fp32 = 0x66  // f
  case last = 0x6C  // l
  case linearSubclass = 0x53  // S
  case router = 0x52  // R
  case expert = 0x45  // E: the path of a parameter, not of a module
  case other = 0x4E  // N

  /// Whether the loader would make a 4-bit module of it, were it not skipped.
  var isLinear: Bool {
    switch self {
    case .linear, .conv1D, .outputEmbedding, .tied, .fp32, .last: true
    case .linearSubclass, .router, .expert, .other: false
    }
  }
}

/// The rule of one model class.
struct ClassRule: Sendable {
  /// `base_model_prefix`.
  var prefix: [UInt8] = []
  var tiesByDefault = false
  /// The loader of a 4-bit checkpoint puts separate layers in place of stacked experts, and does not find theirs.
  var replacesExperts = false
  var renamings: [Renaming] = []
  /// Module paths in which `*` stands for a whole number; a path with its own numbers goes before that.
  var kinds: [[UInt8]: ModuleKind] = [:]
  /// Paths of `.last` modules in which `$` stands for the highest number there is.
  var lastPaths: [[UInt8]] = []

  /// nil when the class is not known.
  init?(architecture: String, text: RuleText = .embedded) {
    guard let lines = text.lines(ofClass: Array(architecture.utf8)) else { return nil }
    for line in lines {
      let words = line.words
      if words[0].elementsEqual("prefix".utf8) {
        prefix = words[1].elementsEqual("-".utf8) ? [] : Array(words[1])
        tiesByDefault = words.count > 2
      } else if words[0].elementsEqual("replaces-experts".utf8) {
        replacesExperts = true
      } else if words[0].elementsEqual("names".utf8) {
        renamings += text.renamings(Array(words[1]), scope: words.count > 2 ? words[2] : nil) ?? []
      } else {
        add(line, below: [], from: text)
      }
    }
    renamings += text.renamings([UInt8(ascii: "0")], scope: nil) ?? []
  }

  private mutating func add(_ line: ArraySlice<UInt8>, below base: [UInt8], from text: RuleText) {
    let words = line.words
    let dot = UInt8(ascii: ".")
    if words[0].elementsEqual("@".utf8) {
      let path = words[2].elementsEqual(".".utf8) ? base : base + words[2] + [dot]
      for inner in text.lines(ofBlock: Array(words[1])) { add(inner, below: path, from: text) }
      return
    }
    guard let letter = words[0].first, let kind = ModuleKind(rawValue: letter) else { return }
    let parent = words[1].elementsEqual(".".utf8) ? [] : Array(words[1]) + [dot]
    for name in words.dropFirst(2) {
      let path = base + parent + name
      if kind == .last, path.contains(UInt8(ascii: "$")) {
        lastPaths.append(path)
      } else {
        kinds[path] = kind
      }
    }
  }

  func kind(of path: [UInt8]) -> ModuleKind? { kinds[path] ?? kinds[path.generalised] }
}
