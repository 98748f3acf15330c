import Testing

@testable import Quantization

/// Values that are difficult in one way or another.
enum BlockValueKind: String, CaseIterable, Sendable {
  case ordinary, heavyTailed, uneven, constant, sparse, zeros, subnormal, mixed, positive, tiny, huge, largest

  func value(_ index: Int, _ random: inout Random) -> Float {
    let normal = Float(random.normal())
    switch self {
    case .ordinary: return normal * 0.02
    case .heavyTailed: return normal / Float(random.normal())
    case .uneven: return normal * Float(sign: .plus, exponent: index / 16 * 7 % 40 - 20, significand: 1)
    case .constant: return index / 256 % 2 == 0 ? 0.3 : -0.7
    case .sparse: return random.next() % 16 == 0 ? normal : -0.0
    case .zeros: return random.next() % 2 == 0 ? 0 : -0.0
    case .subnormal: return Float(bitPattern: UInt32(truncatingIfNeeded: random.next()) & 0x807F_FFFF)
    case .mixed: return index / 16 % 3 == 0 ? normal * 0x1p-130 : normal
    case .positive: return normal.magnitude + 0.5
    case .tiny: return normal * Float(sign: .plus, exponent: -index / 256 * 30 - 20, significand: 1)
    case .huge: return normal * Float(sign: .plus, exponent: index / 256 * 5 + 16, significand: 1)
    case .largest: return normal < 0 ? -.greatestFiniteMagnitude : .greatestFiniteMagnitude
    }
  }

  func values(_ count: Int) -> [Float] {
    var random = Random(7)
    return (0..<count).map { value($0, &random) }
  }

  /// One in sixteen weights is zero.
  static func importance(_ count: Int) -> [Float] {
    var random = Random(8)
    return (0..<count).map { _ in random.next() % 16 == 0 ? 0 : Float(random.normal() * random.normal()).magnitude }
  }
}

extension KernelTests {
  @Suite struct KQuants {
    func check(
      _ encoder: BlockEncoder, _ values: [Float], rowLength: Int, importance: [Float]?, _ title: String,
      _ location: SourceLocation = #_sourceLocation
    ) {
      let expected = encoder.twin(values, rowLength, importance)
      for target in Target.all {
        let found = Target.with(target) {
          encoder.encode(values, rowLength: rowLength, importance: importance)
        }
        if let difference = encoder.difference(found, from: expected) {
          Issue.record(
            "\(title), \(importance == nil ? "plain" : "weighted"), on \(KernelTarget.names[target]): \(difference)",
            sourceLocation: location)
        }
      }
    }

    @Test(arguments: BlockEncoder.all)
    func kinds(_ encoder: BlockEncoder) {
      for kind in BlockValueKind.allCases {
        let values = kind.values(3 * 256)
        check(encoder, values, rowLength: 256, importance: nil, kind.rawValue)
        check(encoder, values, rowLength: 768, importance: BlockValueKind.importance(768), kind.rawValue)
      }
    }

    /// Groups of 16 blocks, full and not, and rows that end within one.
    @Test(arguments: BlockEncoder.all)
    func shapes(_ encoder: BlockEncoder) {
      let size = encoder.valuesPerBlock
      for (rows, blocks) in [(0, 1), (1, 1), (1, 16), (3, 6), (17, 2)] {
        let values = BlockValueKind.heavyTailed.values(rows * blocks * size)
        let importance = rows == 1 ? nil : BlockValueKind.importance(blocks * size)
        check(encoder, values, rowLength: blocks * size, importance: importance, "\(rows) rows of \(blocks)")
      }
    }

    /// No factor is infinite or NaN, whatever the values.
    @Test(arguments: BlockEncoder.all, [BlockValueKind.huge, .largest, .subnormal])
    func factorsAreFinite(_ encoder: BlockEncoder, _ kind: BlockValueKind) {
      for importance in [nil, BlockValueKind.importance(768), [Float](repeating: 1e30, count: 768)] {
        let bytes = encoder.encode(kind.values(768), rowLength: 768, importance: importance)
        var factors: Set<UInt16> = []
        for start in stride(from: 0, to: bytes.count, by: encoder.bytesPerBlock) {
          for offset in encoder.factorOffsets {
            factors.insert(UInt16(bytes[start + offset]) | UInt16(bytes[start + offset + 1]) << 8)
          }
        }
        #expect(factors.allSatisfy { $0 & 0x7C00 != 0x7C00 }, "\(factors)")
        #expect(kind == .subnormal ? factors.isSubset(of: [0, 0x8000]) : factors.contains { $0 & 0x7FFF == 0x7BFF })
      }
    }
  }
}
