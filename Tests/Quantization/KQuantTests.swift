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
    case .huge: return normal * Float(sign: .plus, exponent: index / 256 * 8 + 16, significand: 1)
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
      _ encoder: KQuantEncoder, _ values: [Float], rowLength: Int, importance: [Float]?, _ title: String,
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

    @Test(arguments: KQuantEncoder.all)
    func kinds(_ encoder: KQuantEncoder) {
      for kind in BlockValueKind.allCases {
        let values = kind.values(3 * 256)
        check(encoder, values, rowLength: 256, importance: nil, kind.rawValue)
        check(encoder, values, rowLength: 768, importance: BlockValueKind.importance(768), kind.rawValue)
      }
    }

    /// Groups of 16 blocks, full and not, and rows that end within one.
    @Test(arguments: KQuantEncoder.all)
    func shapes(_ encoder: KQuantEncoder) {
      let size = encoder.valuesPerBlock
      for (rows, blocks) in [(0, 1), (1, 1), (1, 16), (3, 6), (17, 2)] {
        let values = BlockValueKind.heavyTailed.values(rows * blocks * size)
        let importance = rows == 1 ? nil : BlockValueKind.importance(blocks * size)
        check(encoder, values, rowLength: blocks * size, importance: importance, "\(rows) rows of \(blocks)")
      }
    }

    /// What is too great for a factor of 16 bits gives an infinite one, and never one that is NaN.
    @Test(arguments: KQuantEncoder.all, [BlockValueKind.huge, .largest, .subnormal, .zeros])
    func factors(_ encoder: KQuantEncoder, _ kind: BlockValueKind) {
      for importance in [nil, [Float](repeating: 1, count: 768), [Float](repeating: 1e10, count: 768)] {
        for target in Target.all {
          let bytes = Target.with(target) {
            encoder.encode(kind.values(768), rowLength: 768, importance: importance)
          }
          let lastBlock = bytes.count - encoder.bytesPerBlock
          let factors = encoder.factorOffsets.map {
            UInt16(bytes[lastBlock + $0] & 0xFF) | UInt16(bytes[lastBlock + $0 + 1] & 0x7F) << 8
          }
          let isHuge = kind == .huge || kind == .largest
          #expect(factors.contains(0x7C00) == isHuge, "\(KernelTarget.names[target]): \(factors)")
          #expect(factors.allSatisfy { isHuge ? $0 <= 0x7C00 : $0 == 0 }, "\(KernelTarget.names[target]): \(factors)")
        }
      }
    }
  }
}
