import Bytes

/// Where transformers keeps chat templates.
public enum ChatTemplateFiles {
  /// The template that is meant when none is named.
  public static let main = "chat_template.jinja"
  /// The older file that processors wrote, a JSON object.
  public static let old = "chat_template.json"
  /// A file for each further template, `NAME.jinja`.
  public static let folder = "additional_chat_templates"
  package static let suffix = ".jinja"
  /// The key in `tokenizer_config.json`: a template, or a list of `{"name", "template"}`.
  public static let key = "chat_template"
  static let usualName = "default"

  /// The template that a file of a model's directory holds; nil for any other file.
  package static func name(of file: String) -> String? {
    if file == main { return usualName }
    guard file.hasPrefix(folder + "/"), file.hasSuffix(suffix) else { return nil }
    let name = file.dropFirst(folder.utf8.count + 1).dropLast(suffix.utf8.count)
    return name.contains("/") ? nil : String(name)
  }

  /// Whether a file of a model's directory says something of templates and nothing else.
  public static func contains(_ file: String) -> Bool {
    file == main || file == old || file.hasPrefix(folder + "/")
  }

  /// The file for a template; nil where its name is none that every system takes, or one that transformers, which
  /// keeps them all in one table, takes for the main template.
  package static func file(for name: String) -> String? {
    if name == usualName { return main }
    let isPlain = name.unicodeScalars.allSatisfy { scalar in
      scalar.isHarmless && !["/", "\\", ":", "*", "?", "\"", "<", ">", "|"].contains(scalar)
    }
    guard isPlain, !name.isEmpty, name.utf8.count <= 200, name != "file", name.first != "." else { return nil }
    return "\(folder)/\(name)\(suffix)"
  }
}
