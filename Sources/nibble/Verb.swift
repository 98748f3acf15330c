import Bytes
import Patterns

/// One word after `nibble`: its help and what it does.
protocol Verb: SendableMetatype {
  static var name: String { get }
  /// One line for the list of verbs.
  static var summary: String { get }
  /// The operands after the verb in help: `SOURCE -o OUT [options]`.
  static var operands: String { get }
  /// A paragraph of lines of at most 78 characters.
  static var description: [String] { get }
  static var example: [String] { get }
  static var options: [Option] { get }

  /// - Returns: the exit code.
  static func run(_ arguments: Arguments) throws(Failure) -> Int32
}

extension Verb {
  static var help: String {
    var text = "nibble \(name) \(operands)\n\n"
    for line in description { text += line + "\n" }
    text += "\nExample:\n"
    for line in example { text += "  " + line + "\n" }
    text += "\nOptions:\n"
    for option in options {
      let forms = [option.short, option.name].compactMap(\.self).joined(separator: ", ")
      let left = "  " + forms + (option.value.map { " \($0)" } ?? "")
      let column = 29
      if left.count < column - 1 {
        text += left + String(repeating: " ", count: column - left.count)
      } else {
        text += left + "\n" + String(repeating: " ", count: column)
      }
      text += option.help.joined(separator: "\n" + String(repeating: " ", count: column)) + "\n"
    }
    return text
  }
}

/// The command line as a whole: its verbs and its help.
enum Tool {
  static var verbs: [any Verb.Type] {
    [
      QuantizeVerb.self, MergeVerb.self, ExtractVerb.self, InspectVerb.self, VerifyVerb.self, DiffVerb.self,
      ConvertVerb.self, EditVerb.self, SplitVerb.self, JoinVerb.self, FitVerb.self,
    ]
  }

  /// - Throws: `usage`, with the nearest verb, when there is none of this name.
  static func verb(_ name: String) throws(Failure) -> any Verb.Type {
    guard let verb = verbs.first(where: { $0.name == name }) else {
      let hint = nearest(to: name, among: verbs.map { $0.name }).map { ", did you mean '\($0)'?" }
      throw Failure(.usage, "unknown verb '\(name)'" + (hint ?? "; see 'nibble --help'"))
    }
    return verb
  }

  static var help: String {
    var text = "nibble: makes large models small enough to train\n\nnibble VERB … [options]\n\nVerbs:\n"
    for verb in verbs {
      text += "  \(verb.name)" + String(repeating: " ", count: 14 - verb.name.count) + verb.summary + "\n"
    }
    text += """

      Example:
        nibble quantize CodeLlama-13b-hf -o CodeLlama-13b-nf4

      'nibble help VERB' lists a verb's options; 'nibble --version' (-V) tells which
        version this is.
      Exit codes: 0 done, 1 verify or diff found a difference, 2 wrong command line,
        65 input rejected, 66 input missing, 69 not supported, 73 output exists or
        cannot be created, 74 read or write error, 75 locked by another run.

      """
    return text
  }
}
