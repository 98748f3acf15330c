import Testing

@testable import Bytes

/// The buffer of xxHash's own sanity check: the top bytes of a multiplicative sequence.
private let sanityBuffer: [UInt8] = {
  var state: UInt64 = 2_654_435_761
  return (0...2400).map { _ in
    defer { state &*= 11_400_714_785_074_694_797 }
    return UInt8(state >> 56)
  }
}()

struct DigestVector: Sendable, CustomTestStringConvertible {
  var count: Int
  var xxh3: String
  var xxh128: String
  var testDescription: String { "\(count) bytes" }

  init(_ count: Int, _ xxh3: String, _ xxh128: String) {
    (self.count, self.xxh3, self.xxh128) = (count, xxh3, xxh128)
  }

  /// libxxhash 0.8.1 of Debian 12 over prefixes of `sanityBuffer`; the lengths sit on both sides of
  /// each change of algorithm.
  static let all = [
    DigestVector(0, "2d06800538d394c2", "99aa06d3014798d86001c324468d497f"),
    DigestVector(1, "c44bdff4074eecdb", "a6cd5e9392000f6ac44bdff4074eecdb"),
    DigestVector(3, "54247382a8d6b94d", "20efc49ff02422ea54247382a8d6b94d"),
    DigestVector(8, "24ccc9acaa9f65e4", "47a7f080d82bb45664c69cab4bb21dc5"),
    DigestVector(16, "981b17d36c7498c9", "c68c368ecf8a9c05562980258a998629"),
    DigestVector(17, "796f5acd3a60f862", "955fa78643ed3669abbc12d11973d7db"),
    DigestVector(128, "fcff24126754d861", "39992220e045260aebb15e34a7fb5ab1"),
    DigestVector(129, "98f1b0a679a2ca29", "03815fc91f1b30b686c9e3bc8f0a3b5c"),
    DigestVector(240, "81c3c2b67f568ccf", "aa4202daa2769dc85c9aae94c8ebe5a0"),
    DigestVector(241, "c5a639ecd2030e5e", "99a80ecf0ecfc647c5a639ecd2030e5e"),
    DigestVector(1024, "dd85c9b5c1109c5c", "0d30d24071c64c57dd85c9b5c1109c5c"),
    DigestVector(1025, "d870c0fa13211c6a", "fd3ee4fe7f2954c6d870c0fa13211c6a"),
    DigestVector(2400, "7df9fc66bf737fd6", "b9902d95d0d2e4c17df9fc66bf737fd6"),
  ]
}

// Serialized: the implementation under test is chosen process-wide.
@Suite(.serialized) struct DigestTests {
  @Test(arguments: XXH3Implementation.names.indices, DigestVector.all)
  func vector(implementation: Int, vector: DigestVector) {
    XXH3Implementation.select(implementation)
    defer { XXH3Implementation.select(-1) }
    sanityBuffer.withUnsafeBytes { buffer in
      let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<vector.count])
      #expect(XXH3Digest(of: bytes).hexadecimal == vector.xxh3)
      #expect(XXH128Digest(of: bytes).hexadecimal == vector.xxh128)
    }
  }

  /// Every length from 0 to 2400, in one call: the digests, one after the other, are digested again,
  /// and libxxhash 0.8.1 did the same.
  @Test(arguments: XXH3Implementation.names.indices)
  func everyLength(implementation: Int) {
    XXH3Implementation.select(implementation)
    defer { XXH3Implementation.select(-1) }
    var chain64 = XXH3Hasher()
    var chain128 = XXH3Hasher()
    sanityBuffer.withUnsafeBytes { buffer in
      for count in 0...2400 {
        let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<count])
        let wide = XXH128Digest(of: bytes)
        withUnsafeBytes(of: XXH3Digest(of: bytes).value.bigEndian) { chain64.update($0.bytes) }
        withUnsafeBytes(of: (wide.high.bigEndian, wide.low.bigEndian)) { chain128.update($0.bytes) }
      }
    }
    #expect(chain64.digest128.hexadecimal == "aa6ff6aa0171b3ca39d80e8c1d349f86")
    #expect(chain128.digest128.hexadecimal == "ff4066e03edab61e52e3dc80db01d02e")
  }

  /// However the bytes are cut, and even when the instruction set changes half-way, the running
  /// digest is that of the whole.
  @Test(arguments: [1, 3, 63, 64, 65, 255, 256, 257, 1000])
  func streaming(piece: Int) {
    defer { XXH3Implementation.select(-1) }
    sanityBuffer.withUnsafeBytes { buffer in
      for count in [0, 1, 239, 240, 241, 511, 512, 513, 1023, 1024, 1025, 2047, 2048, 2399, 2400] {
        var hasher = XXH3Hasher()
        var start = 0
        while start < count {
          XXH3Implementation.select(start / piece % XXH3Implementation.names.count)
          let end = min(count, start + piece)
          hasher.update(buffer.bytes.extracting(start..<end))
          start = end
        }
        let whole = UnsafeRawBufferPointer(rebasing: buffer[..<count])
        #expect(hasher.digest == XXH3Digest(of: whole), "\(count) bytes by \(piece)")
        #expect(hasher.digest128 == XXH128Digest(of: whole), "\(count) bytes by \(piece)")
        hasher.reset()
        #expect(hasher.digest.hexadecimal == DigestVector.all[0].xxh3)
      }
    }
  }

  @Test func spans() {
    let bytes: [UInt8] = Array("abc".utf8)
    var hasher = XXH3Hasher()
    hasher.update(bytes.span.bytes)
    #expect(hasher.digest.hexadecimal == "78af5f94892f3950")
    #expect(hasher.digest128.hexadecimal == "06b05ab6733a618578af5f94892f3950")
  }

  @Test func hexadecimal() throws {
    let digest = try #require(XXH128Digest(hexadecimal: "00000000000000010000000000abCDef"))
    #expect(digest == XXH128Digest(high: 1, low: 0xabcdef))
    #expect(digest.description == "00000000000000010000000000abcdef")
    #expect(XXH3Digest(hexadecimal: "00000000000000ff") == XXH3Digest(value: 255))
    for bad in ["", "0", "00000000000000fg", "+0000000000000ff", " 0000000000000ff", "000000000000000ff", "００００００００"] {
      #expect(XXH3Digest(hexadecimal: bad) == nil, "\(bad)")
    }
    for bad in [
      "00000000000000010000000000abcdeg", "00000000000000010000000000abcde", "-0000000000000010000000000abcdef",
    ] {
      #expect(XXH128Digest(hexadecimal: bad) == nil, "\(bad)")
    }
  }
}
