package import JSON

/// A value of `config.json` written in a family's table.
package enum Constant: Sendable {
  case null
  case bool(Bool)
  case integer(Int)
  case real(Double)
  case text(String)

  package var json: JSONValue {
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
  package init(nilLiteral: ()) { self = .null }
  package init(booleanLiteral value: Bool) { self = .bool(value) }
  package init(integerLiteral value: Int) { self = .integer(value) }
  package init(floatLiteral value: Double) { self = .real(value) }
  package init(stringLiteral value: String) { self = .text(value) }
}
