import Bytes
import Patterns

/// The words of a command line, sorted into options and operands.
struct Arguments {
  private var values: [String: [String]] = [:]
  private(set) var operands: [String] = []

  /// Options may stand anywhere; `--key value` and `--key=value` both work; after `--` all are operands.
  ///
  /// - Throws: `usage`, with the nearest known option when one is unknown.
  init(_ words: [String], options: [Option], verb: String) throws(Failure) {
    var rest = words[...]
    while let word = rest.popFirst() {
      if word == "--" {
        operands += rest
        break
      }
      guard word.hasPrefix("-"), word != "-" else {
        operands.append(word)
        continue
      }
      let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      let isLong = word.hasPrefix("--")
      let name = isLong ? parts[0] : word
      guard let option = options.first(where: { $0.isNamed(name) }) else {
        throw Self.unknown(name, options, verb: verb)
      }
      if values[option.name] != nil, !option.isRepeatable, option.value != nil {
        throw Failure(.usage, "option '\(option.name)' is given twice")
      }
      guard let placeholder = option.value else {
        guard !isLong || parts.count == 1 else { throw Failure(.usage, "option '\(name)' takes no value") }
        values[option.name] = [""]
        continue
      }
      var value: String?
      if isLong, parts.count == 2 {
        value = parts[1]
      } else if let next = rest.first, !options.contains(where: { $0.isNamed(next) }) {
        // An option where a value should stand is a forgotten value; `--key=--option` says it is meant.
        value = rest.popFirst()
      }
      guard let value, !value.isEmpty else {
        throw Failure(.usage, "option '\(name)' needs a value: \(name) \(placeholder)")
      }
      values[option.name, default: []].append(value)
    }
  }

  private static func unknown(_ name: String, _ options: [Option], verb: String) -> Failure {
    let hint = nearest(to: name, among: options.map(\.name)).map { ", did you mean '\($0)'?" }
    return Failure(.usage, "unknown option '\(name)'" + (hint ?? "; see 'nibble \(verb) --help'"))
  }

  // MARK: - Values

  func has(_ option: Option) -> Bool { values[option.name] != nil }

  func text(_ option: Option) -> String? { values[option.name]?.last }

  func all(_ option: Option) -> [String] { values[option.name] ?? [] }

  func number(_ option: Option, allowed: ClosedRange<Int>) throws(Failure) -> Int? {
    guard let text = text(option) else { return nil }
    guard let number = Int(text), allowed.contains(number) else {
      throw Failure(
        .usage, "option '\(option.name)': '\(text)' is not a number from \(allowed.lowerBound) to \(allowed.upperBound)"
      )
    }
    return number
  }

  func decimal(_ option: Option, allowed: ClosedRange<Int>) throws(Failure) -> Double? {
    guard let text = text(option) else { return nil }
    // No hexadecimal digits and no words.
    guard text.utf8.allSatisfy({ "0123456789.e-".utf8.contains($0) }),
      let number = Double(text), number >= Double(allowed.lowerBound), number <= Double(allowed.upperBound)
    else {
      throw Failure(
        .usage, "option '\(option.name)': '\(text)' is not a number from \(allowed.lowerBound) to \(allowed.upperBound)"
      )
    }
    return number
  }

  func choice<T: CaseIterable & RawRepresentable>(_ option: Option, _ type: T.Type) throws(Failure) -> T?
  where T.RawValue == String {
    try choice(option, among: T.allCases.map(\.rawValue)).flatMap(T.init)
  }

  func choice(_ option: Option, among allowed: [String]) throws(Failure) -> String? {
    guard let text = text(option) else { return nil }
    guard allowed.contains(text) else {
      let hint = nearest(to: text, among: allowed).map { "; did you mean '\($0)'?" } ?? ""
      throw Failure(
        .usage, "option '\(option.name)': '\(text)' is not one of \(allowed.joined(separator: ", "))\(hint)")
    }
    return text
  }

  /// `5GB`, `5GiB`, `1.5GB`, `4096B`.
  func size(_ option: Option) throws(Failure) -> Int? {
    guard let text = text(option) else { return nil }
    guard let bytes = try Self.bytes(text, of: option) else {
      throw Failure(.usage, "option '\(option.name)': '\(text)' is not a size such as 5GB or 512MiB")
    }
    return bytes
  }

  /// The bytes that a size stands for, at least one; nil when it is none.
  ///
  /// - Throws: `usage` for a small number without a unit: nobody means so few bytes.
  static func bytes(_ text: String, of option: Option) throws(Failure) -> Int? {
    guard let bytes = bytes(text) else { return nil }
    guard bytes < 1 << 20, text.allSatisfy({ $0.isNumber || $0 == "." }) else { return bytes }
    // Beyond any GiB of a card or a file, what tools print is MiB.
    let likely = bytes < 2048 ? "GiB" : "MiB"
    throw Failure(.usage, "option '\(option.name)': '\(text)' has no unit: \(text) bytes (\(text)B)? \(text)\(likely)?")
  }

  private static func bytes(_ text: String) -> Int? {
    let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
    let unit = text.dropFirst(digits.count).lowercased()
    let factors: [String: Double] = [
      "": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 1024, "mib": 1_048_576, "gib": 1_073_741_824,
      "tib": 1_099_511_627_776,
    ]
    guard let number = Double(digits), let factor = factors[unit], number * factor >= 1, number * factor < 9e18 else {
      return nil
    }
    return Int(number * factor)
  }

  /// The operands, of which there must be as many as `names`.
  func operands(_ names: String..., verb: String) throws(Failure) -> [String] {
    if operands.count > names.count {
      throw Failure(.usage, "unexpected argument '\(operands[names.count])'; see 'nibble \(verb) --help'")
    }
    if operands.count < names.count {
      throw Failure(.usage, "\(names[operands.count]) is missing; see 'nibble \(verb) --help'")
    }
    return operands
  }

  func required(_ option: Option, verb: String) throws(Failure) -> String {
    guard let text = text(option) else {
      throw Failure(.usage, "option '\(option.short ?? option.name)' is missing; see 'nibble \(verb) --help'")
    }
    return text
  }
}
