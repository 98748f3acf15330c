public import Bytes
import Tensors

/// The key-value pairs of a GGUF file, in their order.
public struct GGUFMetadata: Sendable {
  public private(set) var pairs: [(key: String, value: GGUFValue)]
  /// By bytes: Swift's strings compare by canonical equivalence.
  private var positions: [TensorName: Int] = [:]

  /// - Precondition: no key occurs twice.
  public init(_ pairs: [(key: String, value: GGUFValue)] = []) {
    self.pairs = []
    for pair in pairs { self[pair.key] = pair.value }
  }

  public subscript(key: String) -> GGUFValue? {
    get { positions[TensorName(key)].map { pairs[$0].value } }
    set {
      if let position = positions[TensorName(key)] {
        if let newValue {
          pairs[position].value = newValue
        } else {
          pairs.remove(at: position)
          positions = [:]
          for (position, pair) in pairs.enumerated() { positions[TensorName(pair.key)] = position }
        }
      } else if let newValue {
        positions[TensorName(key)] = pairs.count
        pairs.append((key, newValue))
      }
    }
  }

  // MARK: - Typed reads: absent is nil, another type an error

  public func integer(_ key: String) throws(Failure) -> Int? { try read(key, "a whole number", \.integer) }
  public func number(_ key: String) throws(Failure) -> Double? { try read(key, "a floating-point number", \.number) }
  public func bool(_ key: String) throws(Failure) -> Bool? { try read(key, "a bool", \.bool) }
  public func text(_ key: String) throws(Failure) -> String? { try read(key, "a UTF-8 string", \.text) }
  public func array(_ key: String) throws(Failure) -> GGUFArray? { try read(key, "an array", \.array) }

  public func integers(_ key: String) throws(Failure) -> [Int]? {
    guard let array = try array(key) else { return nil }
    guard let integers = try array.integers() else { throw wrong(key, array, "whole numbers") }
    return integers
  }

  public func numbers(_ key: String) throws(Failure) -> [Double]? {
    guard let array = try array(key) else { return nil }
    guard let numbers = try array.numbers() else { throw wrong(key, array, "floating-point numbers") }
    return numbers
  }

  public func byteStrings(_ key: String) throws(Failure) -> [[UInt8]]? {
    guard let array = try array(key) else { return nil }
    guard let strings = try array.byteStrings() else { throw wrong(key, array, "strings") }
    return strings
  }

  private func read<T>(_ key: String, _ expected: String, _ get: (GGUFValue) -> T?) throws(Failure) -> T? {
    guard let value = self[key] else { return nil }
    guard let result = get(value) else {
      throw Failure(
        .malformed, "metadata '\(key.printable(limit: 256))': found \(value.type.name), expected \(expected)")
    }
    return result
  }

  private func wrong(_ key: String, _ array: GGUFArray, _ expected: String) -> Failure {
    Failure(
      .malformed,
      "metadata '\(key.printable(limit: 256))': found an array of \(array.elementType.name), expected \(expected)")
  }
}
