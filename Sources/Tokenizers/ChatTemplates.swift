public import Bytes
import GGUF
import JSON

/// How a conversation becomes a text: templates by name. The one called `default` is meant when none is named.
package struct ChatTemplates: Sendable {
  /// The templates; each name, by its bytes, occurs once.
  private(set) var templates: [(name: String, text: String)] = []
  private(set) var warnings: [Warning] = []
  private var positions: [[UInt8]: Int] = [:]

  private func text(of name: String) -> String? { positions[Array(name.utf8)].map { templates[$0].text } }

  /// The last one of a name counts, as in a dictionary of Python's.
  private mutating func set(_ name: String, _ text: String) {
    if let position = positions[Array(name.utf8)] {
      templates[position].text = text
    } else {
      positions[Array(name.utf8)] = templates.count
      templates.append((name, text))
    }
  }

  /// The templates of a Hugging Face directory. Those of `tokenizer_config.json` take precedence, as for llama.cpp's
  /// converter; the files beside it add those of other names.
  init(_ files: TokenizerFiles) {
    if let value = files.configuration?[ChatTemplateFiles.key], !value.isNull { add(value) }
    var differing: [String] = []
    for (name, text) in files.templates {
      if let known = self.text(of: name) {
        if known != text { differing.append(name) }
      } else {
        set(name, text)
      }
    }
    if !differing.isEmpty {
      warnings.append(
        "tokenizer_config.json and the template files differ in \(names: differing); transformers reads the files, "
          + "llama.cpp's converter tokenizer_config.json, as is done here")
    }
    if templates.isEmpty, let value = files.oldTemplates?[ChatTemplateFiles.key] { add(value) }
  }

  private mutating func add(_ value: JSONValue) {
    if let text = value.string { return set(ChatTemplateFiles.usualName, text) }
    // transformers keeps what it would make of the list.
    for (name, template) in value.object?.members ?? [] {
      if let text = template.string { set(name, text) }
    }
    for entry in value.array ?? [] {
      guard let text = entry["template"]?.string else { continue }
      set(entry["name"]?.string ?? "", text)
    }
  }

  /// The templates of a GGUF file.
  init(_ metadata: GGUFMetadata) throws(Failure) {
    let usual = ChatTemplateFiles.usualName
    if let text = try metadata.text(Self.key) { set(usual, text) }
    for pair in metadata.pairs where pair.key.hasBytes(prefix: Self.key + ".") {
      guard let text = try metadata.text(pair.key) else { continue }
      let name = String(decoding: pair.key.utf8.dropFirst(Self.key.utf8.count + 1), as: UTF8.self)
      if name == usual, let main = self.text(of: usual), main != text {
        // Keys differ, so that this name is the only one that can be there twice.
        let free = Self.freeName(usual) { try? metadata.text("\(Self.key).\($0)") }
        warnings.append("there are two main chat templates: '\(pair.key)' becomes '\(free)'")
        set(free, text)
      } else {
        set(name, text)
      }
    }
  }

  // MARK: - As metadata

  static let key = "tokenizer.chat_template"
  static let listKey = "tokenizer.chat_templates"

  /// As gguf-py writes them: names of letters and digits, the main template last. Two names that would become one stay
  /// two.
  mutating func pairs() -> [(key: String, value: GGUFValue)] {
    var pairs: [(key: String, value: GGUFValue)] = []
    var names: Set<String> = []
    var renamed: [String] = []
    var usual: String?
    for (name, text) in templates {
      if name == ChatTemplateFiles.usualName {
        usual = text
        continue
      }
      let letters = String(name.unicodeScalars.map { Self.isNameLetter($0) ? Character($0) : "_" })
      guard !letters.isEmpty else {
        warnings.append("a chat template without a name is left out: GGUF has no place for it")
        continue
      }
      var short = letters
      // Another one may be called so as it is.
      if names.contains(short) || short != name && self.text(of: short) != nil {
        short = Self.freeName(letters) { names.contains($0) ? "" : self.text(of: $0) }
      }
      if short != name { renamed.append("'\(name.printable(limit: 64))' is '\(short.printable(limit: 64))'") }
      names.insert(short)
      pairs.append(("\(Self.key).\(short)", .text(text)))
    }
    if !renamed.isEmpty {
      warnings.append("names of chat templates are letters and digits in GGUF: \(list: renamed)")
    }
    if !names.isEmpty {
      pairs.append((Self.listKey, .strings(pairs.map { String($0.key.dropFirst(Self.key.count + 1)) })))
    }
    if let usual { pairs.append((Self.key, .text(usual))) }
    return pairs
  }

  static func isNameLetter(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar {
    case "a"..."z", "A"..."Z", "0"..."9": true
    default: false
    }
  }

  /// - Parameter taken: what has a name; nil where nothing has.
  private static func freeName(_ name: String, _ taken: (String) -> String?) -> String {
    var number = 2
    while taken("\(name)_\(number)") != nil { number += 1 }
    return "\(name)_\(number)"
  }

  // MARK: - As files

  /// A file for each; nothing when one of them has a name for none, since transformers does not look elsewhere then.
  var files: [(name: String, contents: [UInt8])]? {
    var files: [(name: String, contents: [UInt8])] = []
    var seen: Set<String> = []
    for (name, text) in templates {
      // Some systems take names that differ in case for the same.
      guard let file = ChatTemplateFiles.file(for: name), seen.insert(file.lowercased()).inserted else { return nil }
      files.append((file, Array(text.utf8)))
    }
    return files
  }

  /// For `tokenizer_config.json`.
  var list: JSONValue {
    .array(templates.map { ["name": .string($0.name), "template": .string($0.text)] })
  }
}

/// The chat templates of a Hugging Face directory as GGUF says them.
///
/// - Parameters:
///   - fileNames: of the directory, folders included.
///   - sideFile: the contents of one.
public func ggufChatTemplates(
  fileNames: [String], sideFile: (String) throws(Failure) -> [UInt8]?
) throws(Failure) -> GGUFTokenizer {
  var output = GGUFTokenizer()
  output.set(ChatTemplates(try TokenizerFiles(templatesAmong: fileNames, sideFile)))
  return output
}

/// Whether a key of GGUF's metadata has to do with chat templates.
public func isChatTemplate(_ key: String) -> Bool {
  key == ChatTemplates.key || key == ChatTemplates.listKey || key.hasPrefix(ChatTemplates.key + ".")
}
