import Bytes
import GGUF
import JSON

/// `general.*`: what the model card, the configuration and the directory's name tell of a model. The sources and their
/// order are those of gguf-py 0.19's `Metadata`.
struct GeneralMetadata {
  /// A description of the model itself, of a model it was made from, or of a data set.
  struct Origin {
    var values: [String: String] = [:]

    /// In the order they are written.
    static let keys = ["name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url"]
  }

  private var sampling: SamplingMetadata?
  private var texts: [String: String] = [:]
  private var baseModels: [Origin]?
  private var datasets: [Origin]?
  private var tags: [String]?
  private var languages: [String]?

  /// Keys of a model card and what they tell; the first that is there counts.
  static let cardKeys: [(key: String, names: [String])] = [
    ("name", ["name", "model_name"]), ("author", ["author", "model_author", "model_creator"]),
    ("version", ["version", "model_version"]), ("organization", ["organization", "model_organization"]),
    ("description", ["description", "model_description"]), ("finetune", ["finetune", "model_finetune"]),
    ("basename", ["basename", "model_basename", "model_type"]), ("size_label", ["size_label", "model_size_label"]),
    ("source.url", ["url", "model_url"]), ("source.doi", ["doi", "model_doi"]),
    ("source.uuid", ["uuid", "model_uuid"]), ("source.repo_url", ["repo_url", "model_repo_url"]),
    ("license", ["license"]), ("license.name", ["license_name"]), ("license.link", ["license_link"]),
  ]

  /// In the order they are written.
  private static let order = [
    "name", "author", "version", "organization", "finetune", "basename", "description", "size_label", "license",
    "license.name", "license.link", "source.url", "source.doi", "source.uuid", "source.repo_url",
  ]

  init(
    config: JSONValue, directoryName: String, counts: ParameterCounts,
    sideFile: (String) throws(Failure) -> [UInt8]?, warnings: inout [Warning]
  ) throws(Failure) {
    if let file = try sideFile(SamplingMetadata.file) {
      sampling = SamplingMetadata(file, warnings: &warnings)
    }
    let card = try sideFile("README.md").map { ModelCard($0) } ?? ModelCard()
    readTexts(card)
    baseModels = Self.origins(card, ["base_model", "base_models", "base_model_sources"], counts.total)
    datasets = Self.origins(card, ["datasets", "dataset", "dataset_sources"], counts.total)
    tags = Self.strings(card, ["tags", "pipeline_tag"])
    languages = Self.strings(card, ["languages", "language"])
    if let path = config["_name_or_path"]?.string, path.utf8.count(where: { $0 == UInt8(ascii: "/") }) <= 1 {
      guess(ModelName(path, total: counts.total))
    }
    guess(ModelName(directoryName, total: counts.total))
    texts["name"] = texts["name"] ?? directoryName
    if texts["size_label"] == nil, counts.total > 0 { texts["size_label"] = counts.label }
  }

  func write(to metadata: inout PlannedMetadata) throws(Failure) {
    try sampling?.write(to: &metadata)
    for key in Self.order {
      if let text = texts[key] { metadata.set("general." + key, .text(text)) }
    }
    for (kind, origins) in [("base_model", baseModels), ("dataset", datasets)] {
      guard let origins else { continue }
      try metadata.set("general.\(kind).count", count: origins.count)
      for (number, origin) in origins.enumerated() {
        for key in Origin.keys {
          if let text = origin.values[key] { metadata.set("general.\(kind).\(number).\(key)", .text(text)) }
        }
      }
    }
    if let tags { metadata.set("general.tags", .strings(tags)) }
    if let languages { metadata.set("general.languages", .strings(languages)) }
  }

  private mutating func readTexts(_ card: ModelCard) {
    for (key, names) in Self.cardKeys {
      for name in names where texts[key] == nil {
        switch card[name] {
        case .text(let text): texts[key] = text
        case .list(let values): texts[key] = values.compactMap(\.text).joined(separator: ",")
        default: break
        }
      }
    }
  }

  /// Fills in what is not known yet.
  private mutating func guess(_ name: ModelName) {
    let guesses = [
      ("name", name.fullName.map(ModelName.title)), ("organization", name.organization.map(ModelName.title)),
      ("basename", name.basename), ("finetune", name.finetune), ("version", name.version),
      ("size_label", name.sizeLabel),
    ]
    for (key, guess) in guesses { texts[key] = texts[key] ?? guess }
  }

  /// All that the keys hold, one after the other.
  private static func strings(_ card: ModelCard, _ keys: [String]) -> [String]? {
    var strings: [String]?
    for key in keys {
      switch card[key] {
      case .text(let text): strings = (strings ?? []) + [text]
      case .list(let values): strings = (strings ?? []) + values.compactMap(\.text)
      case nil, .null: break
      default: strings = strings ?? []
      }
    }
    return strings
  }

  private static func origins(_ card: ModelCard, _ keys: [String], _ total: Int) -> [Origin]? {
    guard let value = keys.lazy.compactMap({ card[$0] }).first else { return nil }
    switch value {
    case .text(let text): return [origin(text, total)]
    case .list(let values):
      return values.map { value in
        switch value {
        case .text(let text): origin(text, total)
        case .mapping(let mapping): Origin(values: mapping)
        default: Origin()
        }
      }
    default: return []
    }
  }

  /// The origin that a model card gives as `owner/name` or as an address.
  static func origin(_ text: String, _ total: Int) -> Origin {
    var origin = Origin()
    var identifier = text
    if ["http://", "https://", "ssh://"].contains(where: { text.hasPrefix($0) }) {
      origin.values["repo_url"] = text
      let hosts = ["https://huggingface.co/", "http://huggingface.co/"]
      guard let host = hosts.first(where: { text.hasPrefix($0) }) else { return origin }
      identifier = String(text.dropFirst(host.count))
      let parts = identifier.split(separator: "/", omittingEmptySubsequences: false)
      guard parts.count == 2, !parts.contains("") else { return origin }
    }
    let name = ModelName(identifier, total: total)
    origin.values["name"] = name.fullName.map(ModelName.title)
    origin.values["organization"] = name.organization.map(ModelName.title)
    origin.values["version"] = name.version
    if origin.values["repo_url"] == nil, let owner = name.organization, let fullName = name.fullName {
      origin.values["repo_url"] = "https://huggingface.co/\(owner)/\(fullName)"
    }
    return origin
  }
}

extension ModelCard.Value {
  fileprivate var text: String? { if case .text(let text) = self { text } else { nil } }
}
