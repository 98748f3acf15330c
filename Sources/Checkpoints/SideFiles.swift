package import Adapters
package import Bytes
import JSON
import Tokenizers

/// The files that go along with the weights: those of the model, and instead of them what an adapter's directory
/// has of tokenizer, chat templates and generation settings, since those are what it was trained with.
package struct SideFiles: Sendable {
  /// Paths of files on disk, relative to the directories that hold them; sorted.
  package private(set) var files: [(name: String, directory: InputDirectory)] = []
  package private(set) var warnings: [Warning] = []
  /// Whether the chat templates are those of an adapter.
  package private(set) var hasTemplatesOfAdapter = false
  /// The contents of files that were made in memory, by name.
  private var made: [String: [UInt8]] = [:]

  static let tokenizerSettings = "tokenizer_config.json"
  static let fromAdapters: Set = [
    "tokenizer.json", "tokenizer.model", tokenizerSettings, "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model", ChatTemplateFiles.main,
    ChatTemplateFiles.old, "generation_config.json",
  ]
  private static let settingsLimit = 1 << 26

  /// - Throws: `malformed` for a tokenizer that contradicts itself; one that is absent or cannot be said in these files
  ///   is left out with a warning.
  package init(of model: StoredModel, adapters: [Adapter] = []) throws(Failure) {
    var chosen: [String: InputDirectory] = [:]
    if let directory = model.checkpoint.directory {
      for name in model.sideFiles { chosen[name] = directory }
    }
    do throws(Failure) {
      let found = try model.makeSideFiles()
      for (name, contents) in found.files { made[name] = contents }
      warnings += found.warnings
    } catch { throw error.located(file: model.checkpoint.fileNames.first) }
    for adapter in adapters {
      guard let directory = adapter.directory else { continue }
      let names =
        ((try? directory.names()) ?? []).filter(Self.fromAdapters.contains)
        + (try ModelFolders.chatTemplates(of: directory))
      if names.isEmpty { continue }
      let replaced = names.filter { chosen[$0] != nil }
      if try Self.hasTemplates(names, directory) {
        hasTemplatesOfAdapter = true
        try dropTemplates(&chosen, isConfigured: !names.contains(Self.tokenizerSettings))
      }
      for name in names {
        chosen[name] = directory
        made[name] = nil
      }
      warnings.append(
        "from '\(adapter.path)', not from the base: \(names: names)"
          + (replaced.isEmpty ? " (the base has none)" : ""))
    }
    files = chosen.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }.map { ($0.key, $0.value) }
  }

  // MARK: - Chat templates

  /// Whether a directory says which chat templates there are.
  private static func hasTemplates(_ names: [String], _ directory: InputDirectory) throws(Failure) -> Bool {
    if names.contains(where: ChatTemplateFiles.contains) { return true }
    guard names.contains(tokenizerSettings) else { return false }
    let settings = try settings(directory.open(tokenizerSettings).contents(limit: settingsLimit))
    return settings[ChatTemplateFiles.key].map { !$0.isNull } ?? false
  }

  private static func settings(_ contents: [UInt8]) throws(Failure) -> JSONValue {
    try JSONValue(parsing: contents, .python, file: tokenizerSettings)
  }

  /// A set of templates is one thing: of the base's none stays beside those of an adapter, where it could come before
  /// them.
  ///
  /// - Parameter isConfigured: whether the tokenizer's settings stay the base's, which may have templates in them.
  private mutating func dropTemplates(_ chosen: inout [String: InputDirectory], isConfigured: Bool) throws(Failure) {
    for name in chosen.keys where ChatTemplateFiles.contains(name) { chosen[name] = nil }
    for name in made.keys where ChatTemplateFiles.contains(name) { made[name] = nil }
    guard isConfigured else { return }
    let name = Self.tokenizerSettings
    var contents = made[name]
    if contents == nil { contents = try chosen[name]?.open(name).contents(limit: Self.settingsLimit) }
    guard let contents else { return }
    var settings = try Self.settings(contents)
    guard settings[ChatTemplateFiles.key] != nil else { return }
    settings[ChatTemplateFiles.key] = nil
    made[name] = Array((settings.text(.indented) + "\n").utf8)
    chosen[name] = nil
  }

  // MARK: - Contents

  package var names: [String] { (files.map(\.name) + made.keys).sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) } }

  /// One more file of the model's directory, unchanged.
  package mutating func add(_ name: String, in directory: InputDirectory) { files.append((name, directory)) }

  /// The contents of a file that was made in memory; nil for one on disk.
  package func contents(_ name: String) -> [UInt8]? { made[name] }

  package func size(_ name: String) throws(Failure) -> Int {
    if let contents = made[name] { return contents.count }
    return try open(name).size
  }

  package func open(_ name: String) throws(Failure) -> InputFile {
    guard let file = files.first(where: { $0.name == name }) else {
      throw Failure(.missing, "no such file", file: name)
    }
    return try file.directory.open(path: name)
  }
}
