/// A message about something worth knowing that is no error: one reason, and the names of all that it holds for.
///
/// A string literal is a warning; `\(names: list)` in it stands for names. On a terminal the first three of them and
/// the number of the others are enough; a report has all.
public struct Warning: Sendable, ExpressibleByStringInterpolation {
  fileprivate enum Part: Sendable {
    case words(String)
    case names([String], isQuoted: Bool)

    var names: [String] {
      if case .names(let names, _) = self { names } else { [] }
    }
  }

  fileprivate var parts: [Part]

  /// How many names are shown on a terminal.
  public static let shownNames = 3

  public init(_ text: String) { parts = [.words(text)] }

  public init(stringLiteral text: String) { self.init(text) }

  /// A failure that stops nothing.
  public init(_ failure: Failure) {
    parts = []
    if let file = failure.file { self += "\(list: [file]): " }
    if let tensor = failure.tensor { self += "tensor \(names: [tensor]): " }
    self += "\(failure.message.printable(limit: 2048))"
    if let offset = failure.offset { self += ", at offset \(list: ["\(offset)"])" }
  }

  /// Everything it names.
  public var names: [String] {
    parts.flatMap { $0.names }
  }

  /// The text with a few of the names, for a terminal.
  public var brief: String { text(limit: Self.shownNames) }

  /// Whether the whole text, with all names, does.
  public func contains(_ text: some StringProtocol) -> Bool { description.contains(text) }

  private func text(limit: Int) -> String {
    var text = ""
    for part in parts {
      switch part {
      case .words(let words): text += words
      case .names(let names, let isQuoted):
        let shown = names.prefix(limit).map { $0.printable(limit: 512) }
        text += shown.map { isQuoted ? "'\($0)'" : $0 }.joined(separator: ", ")
        if names.count > limit { text += " and \(names.count - limit) more" }
      }
    }
    return text
  }

  // MARK: - One for each reason

  /// The text without the names, the same for all of them.
  private var reason: String {
    parts.map { part -> String in if case .words(let words) = part { words } else { "\0" } }.joined()
  }

  /// Joins warnings of the same reason into one, at the place of the first.
  public static func grouped(_ warnings: [Warning]) -> [Warning] {
    var groups: [[Warning]] = []
    var places: [String: Int] = [:]
    for warning in warnings {
      if let place = places[warning.reason] {
        groups[place].append(warning)
      } else {
        places[warning.reason] = groups.count
        groups.append([warning])
      }
    }
    return groups.map { Warning(joining: $0) }
  }

  /// - Parameter group: of one reason, at least one.
  private init(joining group: [Warning]) {
    parts = group[0].parts
    for (index, part) in parts.enumerated() where group.count > 1 {
      guard case .names(_, let isQuoted) = part else { continue }
      var seen: Set<String> = []
      let names = group.flatMap { $0.parts[index].names }.filter { seen.insert($0).inserted }
      parts[index] = .names(names, isQuoted: isQuoted)
    }
  }
}

extension Warning: CustomStringConvertible {
  /// The text with all names.
  public var description: String { text(limit: Int.max) }
}

extension Warning: Equatable {
  public static func == (a: Warning, b: Warning) -> Bool { a.description == b.description }
}

extension Warning {
  public struct StringInterpolation: StringInterpolationProtocol {
    fileprivate var parts: [Part] = []

    public init(literalCapacity: Int, interpolationCount: Int) {}

    public mutating func appendLiteral(_ text: String) { parts.append(.words(text)) }

    public mutating func appendInterpolation(_ value: some Any) { parts.append(.words("\(value)")) }

    /// Names in quotes, with commas between.
    public mutating func appendInterpolation(names: [String]) { parts.append(.names(names, isQuoted: true)) }

    /// Files, numbers and other things that are written without quotes.
    public mutating func appendInterpolation(list: [String]) { parts.append(.names(list, isQuoted: false)) }

    /// A warning with something around it.
    public mutating func appendInterpolation(_ warning: Warning) { parts += warning.parts }
  }

  public init(stringInterpolation: StringInterpolation) { parts = stringInterpolation.parts }

  public static func += (a: inout Warning, b: Warning) { a.parts += b.parts }

  public static func + (a: Warning, b: Warning) -> Warning {
    var sum = a
    sum.parts += b.parts
    return sum
  }
}
