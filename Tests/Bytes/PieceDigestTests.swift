import TestSupport
import Testing

@testable import Bytes

private let kibibyte = 1024
private let mebibyte = 1024 * 1024

/// Where a tensor is cut, and the digests of what lies between.
@Suite struct PieceDigestTests {
  struct Cut: Sendable, CustomTestStringConvertible {
    var byteCount: Int
    /// Bytes of a piece; nil for a tensor that is not divided.
    var piece: Int?
    var count = 0
    var testDescription: String { "\(byteCount) bytes" }
  }

  static let cuts = [
    Cut(byteCount: 0), Cut(byteCount: 1), Cut(byteCount: mebibyte - 1), Cut(byteCount: mebibyte),
    Cut(byteCount: mebibyte + 1, piece: 256 * kibibyte, count: 5),
    Cut(byteCount: 5 * 256 * kibibyte, piece: 256 * kibibyte, count: 5),
    Cut(byteCount: 5 * 256 * kibibyte + 1, piece: 256 * kibibyte, count: 6),
    Cut(byteCount: 32 * mebibyte, piece: 256 * kibibyte, count: 128),
    Cut(byteCount: 32 * mebibyte + 1, piece: 512 * kibibyte, count: 65),
    Cut(byteCount: 64 * mebibyte, piece: 512 * kibibyte, count: 128),
    Cut(byteCount: 64 * mebibyte + 1, piece: mebibyte, count: 65),
    Cut(byteCount: 13824 * 5120 * 2, piece: 2 * mebibyte, count: 68),
    Cut(byteCount: .max, piece: 1 << 56, count: 128),
  ]

  @Test(arguments: cuts) func layout(_ cut: Cut) throws {
    let layout = PieceLayout(byteCount: cut.byteCount)
    #expect(layout?.pieceByteCount == cut.piece)
    guard let layout else { return }
    #expect(layout.count == cut.count)
    // Without holes, and all of it.
    var end = 0
    for piece in 0..<layout.count {
      let bytes = layout.bytes(of: piece...piece)
      #expect(bytes.lowerBound == end)
      #expect(bytes.count == cut.piece || piece == layout.count - 1 && !bytes.isEmpty)
      end = bytes.upperBound
    }
    #expect(end == cut.byteCount)
    #expect(layout.bytes(of: 0...layout.count - 1) == 0..<cut.byteCount)
  }

  /// One layout after another with the same hasher, the bytes cut at every turn elsewhere.
  @Test func digests() {
    let buffer = bytes(32 * mebibyte + 1)
    var generator = SplitMix64(seed: 4)
    var hasher = TensorHasher()
    buffer.withUnsafeBytes { buffer in
      for cut in Self.cuts where cut.byteCount <= buffer.count {
        let whole = UnsafeRawBufferPointer(rebasing: buffer[..<cut.byteCount])
        for longest in [1000, 256 * kibibyte - 1, 256 * kibibyte, 512 * kibibyte, 3 * mebibyte, Int.max] {
          hasher.begin(byteCount: cut.byteCount)
          var start = 0
          while start < cut.byteCount {
            // Exactly that long half of the time.
            let count = Bool.random(using: &generator) ? longest : Int.random(in: 0...longest, using: &generator)
            let end = start + min(count, cut.byteCount - start)
            hasher.update(whole.bytes.extracting(start..<end))
            start = end
          }
          let digests = hasher.finish()
          #expect(digests.whole == XXH3Digest(of: whole))
          let expected = cut.piece.map { piece in
            stride(from: 0, to: cut.byteCount, by: piece).map {
              XXH3Digest(of: UnsafeRawBufferPointer(rebasing: whole[$0..<min($0 + piece, cut.byteCount)]))
            }
          }
          #expect(digests.pieces?.digests == expected, "\(cut.byteCount) bytes by \(longest)")
          #expect(digests.pieces?.hexadecimal == expected?.map(\.hexadecimal).joined())
        }
      }
    }
  }

  /// A hasher that was left in the middle of a piece.
  @Test func beginsAnew() {
    let buffer = bytes(mebibyte + 77)
    var hasher = TensorHasher()
    buffer.withUnsafeBytes { buffer in
      hasher.begin(byteCount: 2 * mebibyte)
      hasher.update(buffer.bytes)
      hasher.begin(byteCount: buffer.count)
      hasher.update(buffer.bytes)
      let second = hasher.finish()
      #expect(second.pieces?.digests.count == 5)
      #expect(second.pieces?.digests.last == XXH3Digest(of: UnsafeRawBufferPointer(rebasing: buffer[mebibyte...])))
      hasher.begin(byteCount: 77)
      hasher.update(buffer.bytes.extracting(droppingFirst: mebibyte))
      #expect(hasher.finish() == TensorDigests(whole: second.pieces?.digests.last ?? second.whole, pieces: nil))
    }
  }

  /// Layouts that others chose.
  @Test(arguments: [1, 3, 100, 999, 1000, 1001, Int.max])
  func anyLayout(pieceByteCount: Int) throws {
    let buffer = bytes(1000)
    let layout = try #require(PieceLayout(byteCount: 1000, pieceByteCount: pieceByteCount))
    var hasher = PieceHasher()
    hasher.begin(layout)
    let digests = try #require(
      buffer.withUnsafeBytes { buffer in
        hasher.update(buffer.bytes)
        return hasher.finish()
      })
    #expect(digests.digests.count == (1000 - 1) / pieceByteCount + 1)
    #expect(PieceDigests(layout, hexadecimal: digests.hexadecimal) == digests)
    #expect(PieceDigests(layout, hexadecimal: digests.hexadecimal.uppercased()) == digests)
    for bad in ["", "0", String(digests.hexadecimal.dropLast()), digests.hexadecimal + "0000000000000000"] {
      #expect(PieceDigests(layout, hexadecimal: bad) == nil)
    }
    for bad in ["g", "+", " ", "０"] {
      #expect(PieceDigests(layout, hexadecimal: digests.hexadecimal.dropLast() + bad) == nil)
    }
  }

  @Test func layoutsThatThereAreNot() throws {
    for (byteCount, piece) in [(-1, 1), (1, 0), (1, -1), (Int.min, Int.min)] {
      #expect(PieceLayout(byteCount: byteCount, pieceByteCount: piece) == nil)
    }
    let empty = try #require(PieceLayout(byteCount: 0, pieceByteCount: 1))
    #expect(empty.count == 0 && PieceDigests(empty, hexadecimal: "")?.digests == [])
    // Sixteen digits for each would be more than an integer can count.
    let many = try #require(PieceLayout(byteCount: .max, pieceByteCount: 1))
    #expect(many.count == .max && PieceDigests(many, hexadecimal: "0000000000000000") == nil)
    let two = try #require(PieceLayout(byteCount: .max, pieceByteCount: .max - 1))
    #expect(two.bytes(of: 1...1) == Int.max - 1..<Int.max)
  }

  private func bytes(_ count: Int) -> [UInt8] {
    var generator = SplitMix64(seed: 3)
    return [UInt8](unsafeUninitializedCapacity: count + 8) { buffer, initialized in
      for start in stride(from: 0, to: count, by: 8) {
        UnsafeMutableRawBufferPointer(buffer).storeBytes(of: generator.next(), toByteOffset: start, as: UInt64.self)
      }
      initialized = count
    }
  }
}
