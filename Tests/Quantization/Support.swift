import Testing

@testable import Quantization

/// Kernels under every instruction set of the machine. Serialized, because the choice is process-wide.
@Suite(.serialized) enum KernelTests {}

enum Target {
  static let all = Array(KernelTarget.names.indices)

  /// Runs `body` with one instruction set.
  static func with<T>(_ index: Int, _ body: () throws -> T) rethrows -> T {
    KernelTarget.select(index)
    defer { KernelTarget.select(-1) }
    #expect(simdTarget == KernelTarget.names[index])
    return try body()
  }
}

/// Reproducible random numbers (SplitMix64).
struct Random: RandomNumberGenerator {
  var state: UInt64

  init(_ seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// Roughly normal, standard deviation 1.
  mutating func normal() -> Double {
    (0..<6).reduce(0.0) { sum, _ in sum + Double.random(in: -1...1, using: &self) } / 2.0.squareRoot()
  }

  /// Any bit pattern of a finite value, subnormals included.
  mutating func anyFinite(_ type: FloatType) -> Double {
    while true {
      let value = Reference.value(bits: next(), as: type)
      if value.isFinite { return value }
    }
  }
}

extension Reference {
  static func value(bits: UInt64, as type: FloatType) -> Double {
    withUnsafeBytes(of: bits.littleEndian) { load($0, 0, as: type) }
  }
}

/// `values` rounded to `type`, as bytes at an odd address.
struct Values {
  let type: FloatType
  let count: Int
  private var storage: [UInt8]

  init(_ values: [Double], as type: FloatType) {
    self.type = type
    count = values.count
    storage = [UInt8](repeating: 0, count: 1 + values.count * type.byteCount)
    storage.withUnsafeMutableBytes { bytes in
      let target = UnsafeMutableRawBufferPointer(rebasing: bytes[1...])
      for (index, value) in values.enumerated() { Reference.store(value, index, of: target, as: type) }
    }
  }

  init(bytes: [UInt8], as type: FloatType) {
    self.type = type
    count = bytes.count / type.byteCount
    storage = [0] + bytes
  }

  var bytes: [UInt8] { Array(storage.dropFirst()) }

  subscript(index: Int) -> Double { withBytes { Reference.load($0, index, as: type) } }

  func withBytes<T>(_ range: Range<Int>? = nil, _ body: (UnsafeRawBufferPointer) throws -> T) rethrows -> T {
    let range = range ?? 0..<count
    return try storage.withUnsafeBytes { bytes in
      let start = 1 + range.lowerBound * type.byteCount
      return try body(UnsafeRawBufferPointer(rebasing: bytes[start..<start + range.count * type.byteCount]))
    }
  }
}

/// What quantization makes of a tensor.
struct Quantized: Equatable {
  var codes: [UInt8]
  var absmax: [Float]

  typealias Function =
    @Sendable (
      UnsafeRawBufferPointer, FloatType, FourBitFormat, UnsafeMutableRawBufferPointer, UnsafeMutableBufferPointer<Float>
    ) throws -> Void

  static let kernel: Function = { values, type, format, codes, absmax in
    try format.quantize(values, as: type, codes: codes, absmax: absmax)
  }
  static let reference: Function = { values, type, format, codes, absmax in
    try Reference.quantize(values, as: type, format: format, codes: codes, absmax: absmax)
  }

  init(codes: [UInt8], absmax: [Float]) {
    self.codes = codes
    self.absmax = absmax
  }

  /// Checks on the way that nothing beyond the outputs is written.
  init(_ values: Values, _ format: FourBitFormat, _ range: Range<Int>? = nil, by function: Function = kernel) throws {
    let range = range ?? 0..<values.count
    let codeCount = format.packedByteCount(range.count)
    let blockCount = format.blockCount(range.count)
    codes = [UInt8](repeating: 0xA5, count: codeCount + 64)
    absmax = [Float](repeating: -77, count: blockCount + 16)
    try values.withBytes(range) { bytes in
      try codes.withUnsafeMutableBytes { codes in
        try absmax.withUnsafeMutableBufferPointer { absmax in
          try function(bytes, values.type, format, codes, absmax)
        }
      }
    }
    #expect(codes[codeCount...].allSatisfy { $0 == 0xA5 }, "codes written beyond their end")
    #expect(absmax[blockCount...].allSatisfy { $0 == -77 }, "absmax written beyond its end")
    codes.removeLast(64)
    absmax.removeLast(16)
  }

  /// The worst block of the two in hexadecimal, nil when they agree bit for bit.
  func difference(from expected: Quantized, blockSize: Int) -> String? {
    guard codes.count == expected.codes.count, absmax.count == expected.absmax.count else { return "sizes differ" }
    var worst = (block: 0, count: 0)
    for block in absmax.indices {
      let range = block * blockSize / 2..<min((block + 1) * blockSize / 2, codes.count)
      var count = zip(codes[range], expected.codes[range]).count { $0 != $1 }
      if absmax[block].bitPattern != expected.absmax[block].bitPattern { count += 1 }
      if count > worst.count { worst = (block, count) }
    }
    guard worst.count > 0 else { return nil }
    let range = worst.block * blockSize / 2..<min((worst.block + 1) * blockSize / 2, codes.count)
    func text(_ q: Quantized) -> String {
      "absmax \(String(q.absmax[worst.block].bitPattern, radix: 16)), codes \(q.codes[range].hex)"
    }
    return "block \(worst.block) has \(worst.count) differences: got \(text(self)); expected \(text(expected))"
  }
}

extension Sequence<UInt8> {
  var hex: String {
    map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
  }
}
