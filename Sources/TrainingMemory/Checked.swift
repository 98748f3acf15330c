import Bytes

/// A count that is never negative and whose sums and products remember that they overflowed: formulas read as
/// formulas, and whoever needs the number asks once.
package struct Checked: Sendable, Equatable, ExpressibleByIntegerLiteral {
  /// Nil after an overflow.
  private(set) var value: Int?

  init(_ value: Int) { self.value = value }

  package init(integerLiteral value: Int) { self.value = value }

  private init(_ result: (partialValue: Int, overflow: Bool)) {
    value = result.overflow ? nil : result.partialValue
  }

  static func + (a: Checked, b: Checked) -> Checked {
    guard let a = a.value, let b = b.value else { return .overflow }
    return Checked(a.addingReportingOverflow(b))
  }

  static func * (a: Checked, b: Checked) -> Checked {
    guard let a = a.value, let b = b.value else { return .overflow }
    return Checked(a.multipliedReportingOverflow(by: b))
  }

  static func += (a: inout Checked, b: Checked) { a = a + b }

  static var overflow: Checked { Checked((0, true)) }

  /// Divided and rounded up; `divisor` is at least 1.
  func divided(by divisor: Int) -> Checked {
    guard let value else { return self }
    return Checked(value / divisor + (value % divisor == 0 ? 0 : 1))
  }

  static func max(_ a: Checked, _ b: Checked) -> Checked {
    guard let left = a.value, let right = b.value else { return .overflow }
    return left > right ? a : b
  }

  /// - Throws: `malformed` after an overflow.
  func number(_ what: String) throws(Failure) -> Int {
    guard let value else { throw Failure(.malformed, "the \(what) are more than 2^63") }
    return value
  }
}

extension Sequence {
  package func sum(_ term: (Element) -> Checked) -> Checked { reduce(0) { $0 + term($1) } }
}
