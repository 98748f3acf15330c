import Bytes
import JSON

/// Which tokens begin, end and pad a text, and what stands around it, as llama.cpp's converter gathers them.
///
/// The order of what is found is that of the converter: a later source never overrides an earlier one, but for the
/// post-processor's answers.
struct SpecialTokens {
  private(set) var ids: [(type: String, id: Int)] = []
  private(set) var additions: [(type: String, value: Bool)] = []
  private(set) var chatTemplates: ChatTemplates?
  private(set) var lowercases: Bool?
  private(set) var stripsAccents: Bool?
  private(set) var warnings: [Warning] = []

  private var types: [String]
  private var configuration: JSONObject
  private let limit: Int?
  private var bos: JSONValue?
  private var eos: JSONValue?
  private var sep: JSONValue?
  private var cls: JSONValue?

  static let usualTypes = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"]

  /// - Parameters:
  ///   - types: which tokens to look for, by the names of `tokenizer_config.json` without `_token`.
  ///   - limit: numbers from here on are not the vocabulary's.
  init(
    _ files: TokenizerFiles, _ config: JSONValue, types: [String] = usualTypes, limit: Int? = nil
  ) throws(Failure) {
    self.types = types
    self.limit = limit
    configuration = files.configuration ?? JSONObject()
    if let file = files.tokenizer {
      readNormalizer(file.normalizer)
      readPostProcessor(file.postProcessor)
    }
    chatTemplates = ChatTemplates(files)
    if !configuration.isEmpty { try readConfiguration(files.tokenizer?.addedTokens ?? []) }
    for type in self.types {
      let value = config["\(type)_token_id"]
      if let id = (value?.isNull ?? true ? config["text_config"]?["\(type)_token_id"] : value)?.int {
        try set(type, id, file: "config.json")
      }
    }
  }

  /// Does nothing where the type has an id already.
  mutating func set(_ type: String, _ id: Int, file: String? = nil) throws(Failure) {
    guard id >= 0 else { throw Failure(.malformed, "'\(type)_token_id' is \(id)", file: file) }
    if let limit, id >= limit {
      warnings.append("beyond the vocabulary's \(limit) tokens and left out: \(list: ["\(type) token \(id)"])")
    } else if !ids.contains(where: { $0.type == type }) {
      ids.append((type, id))
    }
  }

  mutating func dropChatTemplates() { chatTemplates = nil }

  private mutating func add(_ type: String, _ value: Bool) {
    if let position = additions.firstIndex(where: { $0.type == type }) {
      additions[position].value = value
    } else {
      additions.append((type, value))
    }
  }

  // MARK: - tokenizer.json

  private mutating func readNormalizer(_ normalizer: JSONValue, depth: Int = 0) {
    switch normalizer["type"]?.string {
    case "Lowercase": lowercases = true
    case "StripAccents": stripsAccents = true
    case "BertNormalizer":
      lowercases = normalizer["lowercase"]?.bool ?? lowercases
      stripsAccents = normalizer["strip_accents"]?.bool ?? stripsAccents
    case "Sequence": for part in normalizer["normalizers"]?.array ?? [] { readNormalizer(part, depth: depth + 1) }
    default: break
    }
  }

  private mutating func readPostProcessor(_ postProcessor: JSONValue) {
    bos = configuration["bos_token"]
    cls = configuration["cls_token"]
    eos = configuration["eos_token"]
    sep = configuration["sep_token"]
    let hasConfiguration = !configuration.isEmpty
    if isNothing(bos), !isNothing(cls), hasConfiguration { setBoth(\.bos, "bos_token", cls) }
    if isNothing(eos), !isNothing(sep), hasConfiguration { setBoth(\.eos, "eos_token", sep) }
    guard postProcessor.object?.isEmpty == false else { return }
    for processor in postProcessor["processors"]?.array ?? [postProcessor] {
      switch processor["type"]?.string {
      case "ByteLevel":
        for type in ["bos", "eos"] where !additions.contains(where: { $0.type == type }) { add(type, false) }
      case "RobertaProcessing":
        for type in ["bos", "eos", "sep"] { add(type, true) }
        if isNothing(cls), hasConfiguration { setBoth(\.cls, "cls_token", processor["cls"]?.array?.first ?? bos) }
        if isNothing(sep), hasConfiguration { setBoth(\.sep, "sep_token", processor["sep"]?.array?.first ?? eos) }
      case "TemplateProcessing": readTemplate(processor)
      default: break
      }
    }
  }

  private mutating func readTemplate(_ processor: JSONValue) {
    let hasConfiguration = !configuration.isEmpty
    let single = processor["single"]?.array ?? []
    var first: JSONValue?
    var last: JSONValue?
    if single.count > 1 {
      first = special(single.first)
      if let first {
        if !hasConfiguration {
          bos = first
        } else if first != bos, first != cls {
          if isNothing(bos) { setBoth(\.bos, "bos_token", first) }
          if isNothing(cls) { setBoth(\.cls, "cls_token", first) }
        }
        add("bos", first == bos || first == cls)
      }
      last = special(single.last)
      if let last {
        if !hasConfiguration {
          eos = last
        } else if last != eos {
          replaceEnd(last)
        }
        add("eos", last == eos)
      }
    }
    readPair(processor["pair"]?.array ?? [], first, last)
  }

  /// The token after each text is another than the one configured to end it, which stays as the end of a turn.
  private mutating func replaceEnd(_ last: JSONValue) {
    if let type = ["eot", "eom"].first(where: { !types.contains($0) }) {
      types.append(type)
      configuration["\(type)_token"] = eos
    }
    setBoth(\.eos, "eos_token", last)
  }

  private mutating func readPair(_ pair: [JSONValue], _ first: JSONValue?, _ last: JSONValue?) {
    var pair = pair[...]
    if let first, special(pair.first) == first { pair = pair.dropFirst() }
    if let last, special(pair.last) == last { pair = pair.dropLast() }
    func sequence(_ part: JSONValue?) -> String? { part?["Sequence"]?["id"]?.string }
    guard sequence(pair.first) == "A", sequence(pair.last) == "B" else { return }
    let between = Array(pair.dropFirst().dropLast())
    guard !between.isEmpty else { return }
    func separates(_ token: JSONValue?) -> Bool { token != nil && (token == sep || token == eos) }
    var isAdded = separates(special(between[0])) && last == nil
    if between.count == 2, separates(special(between[1])) { isAdded = true }
    add("sep", isAdded)
    if isAdded, isNothing(sep), !configuration.isEmpty { configuration["sep_token"] = eos }
  }

  private func special(_ part: JSONValue?) -> JSONValue? {
    guard let id = part?["SpecialToken"]?["id"], !isNothing(id) else { return nil }
    return id
  }

  private func isNothing(_ value: JSONValue?) -> Bool { value == nil || value?.isNull == true || value == "" }

  private mutating func setBoth(
    _ path: WritableKeyPath<SpecialTokens, JSONValue?>, _ key: String, _ value: JSONValue?
  ) {
    self[keyPath: path] = value
    configuration[key] = value
  }

  // MARK: - tokenizer_config.json

  private mutating func readConfiguration(_ addedTokens: [AddedToken]) throws(Failure) {
    for type in types {
      if let value = configuration["add_\(type)_token"]?.bool {
        if let position = additions.firstIndex(where: { $0.type == type }) {
          if additions[position].value != value {
            warnings.append(
              "tokenizer_config.json says add_\(type)_token \(value), tokenizer.json's post-processor "
                + "\(additions[position].value): kept the latter")
          }
        } else {
          additions.append((type, value))
        }
      }
      guard let entry = configuration["\(type)_token"], let content = entry.string ?? entry["content"]?.string,
        let token = addedTokens.first(where: { $0.content.utf8.elementsEqual(content.utf8) })
      else { continue }
      try set(type, token.id)
    }
  }
}
