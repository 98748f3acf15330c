import Bytes
import JSON
import Tokenizers

/// The folders beside a model's weights: which of them belong to it, and what is in those.
///
/// They are found by listing. What the model's own files say only selects among what was listed; no name from a file
/// becomes a path.
struct ModelFolders {
  /// Paths of files that go along, relative to the model's directory.
  private(set) var files: [String] = []
  /// Folders, and things in those that belong to the model, that do not.
  private(set) var left: [String] = []

  /// Folders that tools keep beside a model and no loader of it reads: other forms of the same weights, states of
  /// training, logs. `checkpoint-500` and the like begin so.
  private static let foreign: Set = [
    "original", "onnx", "openvino", "coreml", "tflite", "gguf", "runs", "logs", "wandb", "__pycache__",
  ]
  private static let foreignBeginnings = [".", "checkpoint-", "global_step"]

  static func isForeign(_ name: String) -> Bool {
    foreign.contains(name.lowercased()) || foreignBeginnings.contains { name.hasPrefix($0) }
  }

  /// - Parameters:
  ///   - names: of the directory's folders.
  ///   - documents: the model's own JSON files.
  init(_ names: [String], of directory: InputDirectory, documents: [String]) throws(Failure) {
    var candidates: [String] = []
    for name in names {
      if Self.isForeign(name) || !InputDirectory.isPlainComponent(name) {
        left.append(name)
      } else {
        candidates.append(name)
      }
    }
    if candidates.isEmpty { return }
    let references = FolderReferences(to: candidates, in: directory, documents: documents)
    for name in candidates {
      let isMeant = name == ChatTemplateFiles.folder || references.folders.contains(name)
      let paths = references.paths[name] ?? []
      guard isMeant || !paths.isEmpty else {
        left.append(name)
        continue
      }
      var found = ModelFolders()
      try found.add(directory.folder(name), name, depth: 1)
      guard isMeant || found.files.contains(where: paths.contains) else {
        left.append(name)
        continue
      }
      files += found.files
      left += found.left
    }
  }

  private init() {}

  private mutating func add(_ folder: InputDirectory, _ path: String, depth: Int) throws(Failure) {
    for (name, kind) in try folder.entries() {
      let own = "\(path)/\(name)"
      switch kind {
      case .file, .link: files.append(own)
      case .directory where depth < InputDirectory.depthLimit && !Self.isForeign(name):
        try add(folder.folder(name), own, depth: depth + 1)
      case .directory, .other: left.append(own)
      }
    }
  }

  /// The chat templates of a directory that have files of their own in the folder for them.
  static func chatTemplates(of directory: InputDirectory) throws(Failure) -> [String] {
    guard try directory.entries().contains(where: { $0.name == ChatTemplateFiles.folder && $0.kind == .directory })
    else {
      return []
    }
    return try directory.folder(ChatTemplateFiles.folder).names().map { "\(ChatTemplateFiles.folder)/\($0)" }
  }
}

/// References of a model's JSON files to the folders beside it.
private struct FolderReferences {
  /// Named as wholes, where that means a folder.
  private(set) var folders: Set<String> = []
  /// By folder: what looks like the path of something in it.
  private(set) var paths: [String: Set<String>] = [:]
  private let candidates: Set<String>

  /// sentence-transformers' lists of modules, whose members are names of folders.
  private static let listsOfFolders: Set = ["modules.json", "router_config.json"]
  /// Vocabularies: what looks like a path there is a token.
  private static let vocabularies: Set = [
    "tokenizer.json", "vocab.json", "added_tokens.json", "special_tokens_map.json",
  ]
  private static let sizeLimit = 1 << 22

  init(to candidates: [String], in directory: InputDirectory, documents: [String]) {
    self.candidates = Set(candidates)
    for name in documents where !Self.vocabularies.contains(name) {
      // It is copied as it is whatever it holds: one that is no JSON says nothing.
      guard let file = try? directory.open(name), file.size <= Self.sizeLimit,
        let contents = try? file.contents(limit: Self.sizeLimit),
        let json = try? JSONValue(parsing: contents, .python, file: name)
      else { continue }
      collect(json, areFolders: Self.listsOfFolders.contains(name))
    }
  }

  private mutating func collect(_ value: JSONValue, areFolders: Bool) {
    if let text = value.string { return add(text, areFolders) }
    for element in value.array ?? [] { collect(element, areFolders: areFolders) }
    for (key, member) in value.object?.members ?? [] {
      add(key, areFolders)
      collect(member, areFolders: areFolders)
    }
  }

  private mutating func add(_ text: String, _ isFolder: Bool) {
    var path = text[...]
    while path.hasPrefix("./") { path = path.dropFirst(2) }
    if isFolder {
      let first = path.prefix { $0 != "/" }
      if candidates.contains(String(first)) { folders.insert(String(first)) }
      return
    }
    guard let slash = path.firstIndex(of: "/") else { return }
    let folder = String(path[..<slash])
    guard candidates.contains(folder) else { return }
    paths[folder, default: []].insert(String(path))
  }
}
