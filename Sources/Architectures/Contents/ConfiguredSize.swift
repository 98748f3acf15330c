/// A dimension of a parameter by the configuration: a sum of products of numbers and members of config.json.
struct ConfiguredSize: Equatable {
  private struct Factor: Equatable {
    /// Divides what stands in front of it, rounding down.
    var divides: Bool
    var number: Int?
    /// The member's name, with dots for members of members.
    var member: String
  }

  /// Empty when nothing is known.
  private var products: [[Factor]] = []
  /// Not known, and not the same in every layer.
  private(set) var variesByLayer = false

  init(_ text: ArraySlice<UInt8>) {
    if text.elementsEqual("~".utf8) { variesByLayer = true }
    if text.elementsEqual("~".utf8) || text.elementsEqual("-".utf8) { return }
    products = text.split(separator: UInt8(ascii: "+")).map { product in
      var factors: [Factor] = []
      var left = product
      var divides = false
      while !left.isEmpty {
        let word = left.prefix { $0 != UInt8(ascii: "*") && $0 != UInt8(ascii: "/") }
        let name = String(decoding: word, as: UTF8.self)
        factors.append(Factor(divides: divides, number: Int(name), member: name))
        left = left.dropFirst(word.count)
        divides = left.first == UInt8(ascii: "/")
        left = left.dropFirst()
      }
      return factors
    }
  }

  /// nil where the configuration does not say.
  func value(_ member: (String) -> Int?) -> Int? {
    if products.isEmpty { return nil }
    var sum = 0
    for factors in products {
      var product = 1
      for factor in factors {
        guard let value = factor.number ?? member(factor.member), value >= 0 else { return nil }
        let (next, overflowed) =
          factor.divides
          ? product.dividedReportingOverflow(by: value) : product.multipliedReportingOverflow(by: value)
        if overflowed { return nil }
        product = next
      }
      let (next, overflowed) = sum.addingReportingOverflow(product)
      if overflowed { return nil }
      sum = next
    }
    return sum
  }

  /// `vocab_size`, `2 * intermediate_size`, `head_dim * num_attention_heads`.
  var text: String {
    products.map { factors in
      factors.enumerated().map { index, factor in
        (index == 0 ? "" : factor.divides ? " / " : " * ") + factor.member
      }.joined()
    }.joined(separator: " + ")
  }
}
