/// A JSON number with the text it was written with, so that an edited file keeps every other digit.
public struct JSONNumber: Sendable, Equatable {
  /// ASCII, in the grammar of RFC 8259, or one of the words that Python writes.
  public let text: String

  static let words = ["NaN", "Infinity", "-Infinity"]

  init(verbatim text: String) { self.text = text }

  public init(_ value: Int) { text = String(value) }

  /// The shortest text that reads back as `value`, spelled as Python's `repr` does; nil for NaN and
  /// infinity, which JSON cannot express.
  public init?(_ value: Double) {
    guard value.isFinite else { return nil }
    text = Self.pythonText(of: value)
  }

  /// As Python's `json.dumps` writes it, which has words for what JSON cannot express.
  public init(python value: Double) {
    text = value.isFinite ? Self.pythonText(of: value) : value.isNaN ? "NaN" : value > 0 ? "Infinity" : "-Infinity"
  }

  /// Whether it is a number of RFC 8259, which may be beyond the range of doubles.
  public var isFinite: Bool { !Self.words.contains(text) }

  /// The value of one of Python's words `NaN`, `Infinity` and `-Infinity`; nil for a number.
  public var notFinite: Double? { isFinite ? nil : Double(text) }

  /// The value, when it is written as a whole number (`2.0` and `2e0` are not) and fits.
  public var int: Int? { Int(text) }

  /// The nearest double; nil when the number is beyond the range of finite doubles.
  public var double: Double? {
    guard let value = Double(text), value.isFinite else { return nil }
    return value
  }

  /// `repr(float)`: positional from 1e-4 up to below 1e16, else with an exponent of two digits or more.
  static func pythonText(of value: Double) -> String {
    // Many are, and need no digits found.
    if value.magnitude < 1e15, value != 0, let whole = Int(exactly: value) { return "\(whole).0" }
    // Swift's description has the same shortest digits but changes to exponents elsewhere.
    let description = value.magnitude.description
    let parts = description.split(separator: "e", maxSplits: 1)
    let mantissa = parts[0].split(separator: ".", maxSplits: 1)
    let whole = mantissa[0]
    let fraction = mantissa.count > 1 ? mantissa[1] : ""
    let written = parts.count > 1 ? Int(parts[1]) ?? 0 : 0
    let all = whole + fraction
    let significant = all.drop { $0 == "0" }
    // Power of ten of the first significant digit.
    let exponent = written + whole.count - 1 - (all.count - significant.count)
    var digits = String(significant)
    while digits.hasSuffix("0") { digits.removeLast() }
    let sign = value.sign == .minus ? "-" : ""
    if digits.isEmpty { return sign + "0.0" }
    return sign + place(digits, exponent)
  }

  private static func place(_ digits: String, _ exponent: Int) -> String {
    switch exponent {
    case -4..<0:
      return "0." + String(repeating: "0", count: -exponent - 1) + digits
    case 0..<16:
      let whole = digits.prefix(exponent + 1)
      let fraction = digits.dropFirst(exponent + 1)
      let zeros = String(repeating: "0", count: exponent + 1 - whole.count)
      return whole + zeros + "." + (fraction.isEmpty ? "0" : fraction)
    default:
      let power = String(abs(exponent))
      let fraction = digits.dropFirst()
      return digits.prefix(1) + (fraction.isEmpty ? "" : "." + fraction)
        + (exponent < 0 ? "e-" : "e+") + (power.count < 2 ? "0" + power : power)
    }
  }
}
