import JSON

/// A value of `config.json` written in a family's table.
enum Constant: Sendable {
  case null
  case bool(Bool)
  case integer(Int)
  case real(Double)
  case text(String)

  var json: JSONValue {
    switch self {
    case .null: .null
    case .bool(let value): .bool(value)
    case .integer(let value): .number(JSONNumber(value))
    case .real(let value): JSONNumber(value).map(JSONValue.number) ?? .null
    case .text(let value): .string(value)
    }
  }
}

extension Constant: ExpressibleByNilLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral,
  ExpressibleByFloatLiteral, ExpressibleByStringLiteral
{
  init(nilLiteral: ()) { self = .null }
  init(booleanLiteral value: Bool) { self = .bool(value) }
  init(integerLiteral value: Int) { self = .integer(value) }
  init(floatLiteral value: Double) { self = .real(value) }
  init(stringLiteral value: String) { self = .text(value) }
}
