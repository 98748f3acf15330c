import Bytes
import Tensors

/// How many values the planned tensors hold, and the label made of it.
struct ParameterCounts {
  let total: Int
  /// Those outside of experts, and one expert of each stack.
  let oneExpert: Int
  /// Experts in a stack; 0 without any.
  let experts: Int

  init(_ weights: [PlannedWeight]) throws(Failure) {
    var total = 0
    var oneExpert = 0
    var experts = 0
    var stacks = 0
    for weight in weights {
      let size = try TensorInfo(name: weight.name, type: .u8, shape: weight.shape).elementCount
      let isStack = weight.name.hasSuffix("_exps.weight") && weight.shape.count == 3
      let (sum, overflowed) = total.addingReportingOverflow(size)
      if overflowed { throw Failure(.malformed, "the tensors hold more than \(Int.max) values") }
      total = sum
      // No more than `total`.
      oneExpert += isStack ? size / weight.shape[0] : size
      if isStack {
        experts += weight.shape[0]
        stacks += 1
      }
    }
    self.total = total
    self.oneExpert = oneExpert
    self.experts = stacks > 0 ? experts / stacks : 0
  }

  /// `1.2B`, `8x7.2B`.
  var label: String {
    experts > 0 ? "\(experts)x" + Self.rounded(oneExpert) : Self.rounded(total)
  }

  /// Two digits or more: `950K`, `1.2B`.
  private static func rounded(_ count: Int) -> String {
    let value = Double(count)
    let (scaled, suffix): (Double, String) =
      switch value {
      case let value where value > 1e12: (value * 1e-12, "T")
      case let value where value > 1e9: (value * 1e-9, "B")
      case let value where value > 1e6: (value * 1e-6, "M")
      default: (value * 1e-3, "K")
      }
    let whole = scaled.rounded(.toNearestOrEven)
    let digits = whole == 0 ? 0 : String(Int(whole)).utf8.count
    return fixed(scaled, places: max(2 - digits, 0)) + suffix
  }

  /// `value` with `places` decimals, the exact value rounded, ties to even.
  static func fixed(_ value: Double, places: Int) -> String {
    let power = places == 0 ? 1.0 : places == 1 ? 10.0 : 100.0
    let product = value * power
    let error = (-product).addingProduct(value, power)
    var rounded = product.rounded(.toNearestOrEven)
    // The product itself is rounded: where it falls on a half, what was lost decides.
    if product - product.rounded(.down) == 0.5, error != 0 { rounded = product.rounded(error > 0 ? .up : .down) }
    let digits = String(Int(rounded))
    guard places > 0 else { return digits }
    let padded = String(repeating: "0", count: max(0, places + 1 - digits.utf8.count)) + digits
    return padded.dropLast(places) + "." + padded.suffix(places)
  }
}
