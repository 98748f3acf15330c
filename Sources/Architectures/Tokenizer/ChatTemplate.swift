import Bytes
import JSON

/// How a conversation becomes a text: one template, or several with names.
enum ChatTemplate: Sendable {
  case one(String)
  case several([(name: String, template: String?)])

  static let file = "chat_template.jinja"
  static let folder = "additional_chat_templates"
  /// A directory's files cannot be listed through the caller; these are the names that models use.
  static let knownNames = ["rag", "thinking", "tool_use"]

  /// Nil where there is none. `tokenizer_config.json` has the first word.
  init?(_ files: TokenizerFiles, _ configuration: JSONObject) throws(Failure) {
    if let value = configuration["chat_template"] {
      self.init(value)
    } else if let main = files.chatTemplate {
      if files.otherTemplates.isEmpty {
        self = .one(main)
      } else {
        self = .several([("default", main)] + files.otherTemplates.map { ($0.name, $0.template) })
      }
    } else if let value = files.chatTemplateJSON?["chat_template"] {
      self.init(value)
    } else {
      return nil
    }
  }

  private init?(_ value: JSONValue) {
    if let text = value.string {
      self = .one(text)
    } else if let list = value.array {
      self = .several(list.map { ($0["name"]?.string ?? "", $0["template"]?.string) })
    } else {
      return nil
    }
  }

  static func isNameLetter(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar {
    case "a"..."z", "A"..."Z", "0"..."9": true
    default: false
    }
  }
}
