import Adapters
import Bytes
import Safetensors

/// The files that go along with the weights: those of the model, and instead of them what an adapter's directory
/// has of tokenizer, chat template and generation settings, since those are what it was trained with.
struct SideFiles: Sendable {
  /// Names and the directories that hold them; sorted.
  private(set) var files: [(name: String, directory: InputDirectory)] = []
  private(set) var warnings: [Warning] = []
  /// Those that lie nowhere.
  private var made: [String: [UInt8]] = [:]

  static let fromAdapters: Set = [
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja",
    "chat_template.json", "generation_config.json",
  ]

  /// - Throws: `malformed` for a tokenizer that contradicts itself; one that is absent or cannot be said in these files
  ///   is left out with a warning.
  init(of model: ModelSource, adapters: [Adapter] = []) throws(Failure) {
    var chosen: [String: InputDirectory] = [:]
    if let directory = model.checkpoint.directory {
      for name in model.sideFiles { chosen[name] = directory }
    }
    do throws(Failure) {
      for (name, contents) in try model.makeSideFiles() { made[name] = contents }
    } catch {
      let isDamaged = error.code != .missing && error.code != .unsupported
      if isDamaged { throw error.located(file: model.checkpoint.fileNames.first) }
      warnings.append("the tokenizer is left out: \(error)")
    }
    for adapter in adapters {
      guard let directory = adapter.directory else { continue }
      let names = ((try? directory.names()) ?? []).filter(Self.fromAdapters.contains)
      if names.isEmpty { continue }
      let replaced = names.filter { chosen[$0] != nil }
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

  var names: [String] { (files.map(\.name) + made.keys).sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) } }

  /// One more file of the model's directory, unchanged.
  mutating func add(_ name: String, in directory: InputDirectory) { files.append((name, directory)) }

  /// Of a file that lies nowhere.
  func contents(_ name: String) -> [UInt8]? { made[name] }

  func size(_ name: String) throws(Failure) -> Int {
    if let contents = made[name] { return contents.count }
    return try open(name).size
  }

  func open(_ name: String) throws(Failure) -> InputFile {
    guard let file = files.first(where: { $0.name == name }) else {
      throw Failure(.internal, "no such file", file: name)
    }
    return try file.directory.open(name)
  }
}
