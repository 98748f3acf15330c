import CXXHash

/// XXH3 with 64 bits, as `xxhsum -H3` prints it: the digest of one tensor.
///
/// It detects corruption, not tampering.
public struct XXH3Digest: Hashable, Sendable {
  public var value: UInt64

  public init(value: UInt64) { self.value = value }

  /// The digest of `bytes` in one call.
  public init(of bytes: UnsafeRawBufferPointer) {
    value = unsafe nibble_xxh3_64(bytes.baseAddress, bytes.count)
  }

  /// Parses exactly 16 hexadecimal digits of either case.
  public init?(hexadecimal text: some StringProtocol) {
    guard text.utf8.count == 16, let value = text.utf8.hexadecimalValue else { return nil }
    self.value = value
  }

  /// 16 lower-case hexadecimal digits, most significant first.
  public var hexadecimal: String { value.hexadecimal }
}

/// XXH3 with 128 bits, as `xxhsum -H2` prints it: the digest of one file.
///
/// It detects corruption, not tampering.
public struct XXH128Digest: Hashable, Sendable {
  public var high: UInt64
  public var low: UInt64

  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// The digest of `bytes` in one call.
  public init(of bytes: UnsafeRawBufferPointer) {
    let hash = unsafe nibble_xxh3_128(bytes.baseAddress, bytes.count)
    self.init(high: hash.high, low: hash.low)
  }

  /// Parses exactly 32 hexadecimal digits of either case.
  public init?(hexadecimal text: some StringProtocol) {
    let digits = text.utf8
    guard digits.count == 32, let high = digits.prefix(16).hexadecimalValue,
      let low = digits.suffix(16).hexadecimalValue
    else { return nil }
    self.init(high: high, low: low)
  }

  /// 32 lower-case hexadecimal digits, most significant first.
  public var hexadecimal: String { high.hexadecimal + low.hexadecimal }
}

extension XXH3Digest: CustomStringConvertible {
  public var description: String { hexadecimal }
}

extension XXH128Digest: CustomStringConvertible {
  public var description: String { hexadecimal }
}

/// A running XXH3 of bytes that arrive in pieces, however they are cut.
///
/// Both widths come from the same state, so one pass can give either or both.
@safe public struct XXH3Hasher: ~Copyable, @unchecked Sendable {
  // Owned by this value alone; exclusive access to the value is exclusive access to the state.
  private let state: OpaquePointer

  public init() {
    guard let state = unsafe nibble_xxh3_create() else { fatalError("out of memory") }
    unsafe self.state = unsafe state
  }

  deinit { unsafe nibble_xxh3_destroy(state) }

  public mutating func update(_ bytes: RawSpan) {
    unsafe bytes.withUnsafeBytes { pointer in unsafe nibble_xxh3_update(state, pointer.baseAddress, pointer.count) }
  }

  /// Returns to the state after no bytes at all.
  public mutating func reset() { unsafe nibble_xxh3_reset(state) }

  /// The 64-bit digest of the bytes so far; more may follow.
  public var digest: XXH3Digest { unsafe XXH3Digest(value: nibble_xxh3_digest64(state)) }

  /// The 128-bit digest of the bytes so far; more may follow.
  public var digest128: XXH128Digest {
    let hash = unsafe nibble_xxh3_digest128(state)
    return XXH128Digest(high: hash.high, low: hash.low)
  }
}

/// The ways this machine can compute XXH3, for tests: all give the same digests.
package enum XXH3Implementation {
  /// Slowest first; the last is in use unless `select` chose another.
  package static var names: [String] {
    (0..<nibble_xxh3_implementation_count()).map {
      unsafe String(cString: nibble_xxh3_implementation_name($0))
    }
  }

  /// Process-wide. An index out of range selects the fastest.
  package static func select(_ index: Int) { nibble_xxh3_select(Int32(clamping: index)) }
}

extension UInt64 {
  /// 16 digits.
  var hexadecimal: String {
    let digits = String(self, radix: 16)
    return String(repeating: "0", count: 16 - digits.utf8.count) + digits
  }
}

extension Sequence<UInt8> {
  /// The number that at most 16 ASCII hexadecimal digits spell, nil for any other byte.
  var hexadecimalValue: UInt64? {
    var value: UInt64 = 0
    for digit in self {
      switch digit {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): value = value << 4 | UInt64(digit - UInt8(ascii: "0"))
      case UInt8(ascii: "a")...UInt8(ascii: "f"): value = value << 4 | UInt64(digit - UInt8(ascii: "a") + 10)
      case UInt8(ascii: "A")...UInt8(ascii: "F"): value = value << 4 | UInt64(digit - UInt8(ascii: "A") + 10)
      default: return nil
      }
    }
    return value
  }
}
