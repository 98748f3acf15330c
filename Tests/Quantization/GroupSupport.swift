import Testing

@testable import Quantization

extension GroupFormat: CustomTestStringConvertible {
  public var testDescription: String { "\(mode.rawValue) of \(bits) bits, groups of \(groupSize)" }

  static let all: [GroupFormat] =
    bits.flatMap { bits in groupSizes.compactMap { GroupFormat(bits: bits, groupSize: $0) } }
    + [GroupFormat(mode: .mxfp4, bits: 4, groupSize: 32)].compactMap { $0 }
}

/// Codes, scales and biases of groups.
struct Groups: Equatable {
  var packed: [UInt8]
  var scales: [UInt8]
  var biases: [UInt8]

  var bytes: [UInt8] { packed + scales + biases }
}

extension GroupFormat {
  /// By the kernels of the instruction set in use, or by the twin. The outputs are laid at odd addresses, and
  /// nothing beyond them may be written.
  func quantized(_ values: Values, byReference: Bool = false) throws -> Groups {
    let sizes = [
      packedByteCount(values.count), scaleByteCount(values.count, as: values.type),
      biasByteCount(values.count, as: values.type),
    ]
    // Each has 64 bytes before and behind it.
    var starts = [65]
    for size in sizes { starts.append((starts[starts.count - 1] + size + 64) | 1) }
    let ranges = zip(starts, sizes).map { $0..<$0 + $1 }
    var output = [UInt8](repeating: 0xA5, count: starts[3])
    try values.withBytes { bytes in
      try output.withUnsafeMutableBytes { output in
        let rooms = ranges.map { UnsafeMutableRawBufferPointer(rebasing: output[$0]) }
        if byReference {
          return try Reference.quantize(
            bytes, as: values.type, format: self, packed: rooms[0], scales: rooms[1], biases: rooms[2])
        }
        var packed = MutableRawSpan(_unsafeBytes: rooms[0])
        var scales = MutableRawSpan(_unsafeBytes: rooms[1])
        var biases = MutableRawSpan(_unsafeBytes: rooms[2])
        try quantize(RawSpan(_unsafeBytes: bytes), as: values.type, packed: &packed, scales: &scales, biases: &biases)
      }
    }
    let parts = ranges.map { Array(output[$0]) }
    for range in ranges { output.replaceSubrange(range, with: repeatElement(0xA5, count: range.count)) }
    #expect(output.allSatisfy { $0 == 0xA5 }, "written beyond the output")
    return Groups(packed: parts[0], scales: parts[1], biases: parts[2])
  }

  /// `count` values of `type`, read from and written to odd addresses.
  func dequantized(
    _ groups: Groups, scaleType: FloatType, count: Int, as type: FloatType, byReference: Bool = false
  ) -> Values {
    var output = [UInt8](repeating: 0xA5, count: 1 + count * type.byteCount + 64)
    let inputs = [groups.packed, groups.scales, groups.biases].map { [0] + $0 }
    output.withUnsafeMutableBytes { output in
      let room = UnsafeMutableRawBufferPointer(rebasing: output[1..<1 + count * type.byteCount])
      inputs[0].withUnsafeBytes { packed in
        inputs[1].withUnsafeBytes { scales in
          inputs[2].withUnsafeBytes { biases in
            let parts = [packed, scales, biases].map { UnsafeRawBufferPointer(rebasing: $0[1...]) }
            if byReference {
              return Reference.dequantize(
                packed: parts[0], scales: parts[1], biases: parts[2], scaleType: scaleType, format: self, into: room,
                as: type)
            }
            var values = MutableRawSpan(_unsafeBytes: room)
            dequantize(
              packed: RawSpan(_unsafeBytes: parts[0]), scales: RawSpan(_unsafeBytes: parts[1]),
              biases: RawSpan(_unsafeBytes: parts[2]), scaleType: scaleType, into: &values, as: type)
          }
        }
      }
    }
    let end = 1 + count * type.byteCount
    #expect(output[0] == 0xA5 && output[end...].allSatisfy { $0 == 0xA5 }, "written beyond the output")
    return Values(bytes: Array(output[1..<end]), as: type)
  }

  /// The worst group of the two in hexadecimal, nil when they agree.
  func difference(_ found: Groups, from expected: Groups) -> String? {
    guard found != expected else { return nil }
    guard found.bytes.count == expected.bytes.count else { return "sizes differ" }
    let count = found.packed.count * 8 / bits / groupSize
    func text(_ groups: Groups, _ group: Int) -> String {
      func part(_ bytes: [UInt8]) -> String {
        bytes[group * bytes.count / count..<(group + 1) * bytes.count / count].hex
      }
      return "scale \(part(groups.scales)), bias \(part(groups.biases)), codes \(part(groups.packed))"
    }
    func differences(_ group: Int) -> Int { zip(text(found, group), text(expected, group)).count { $0 != $1 } }
    let worst = (0..<count).max { differences($0) < differences($1) } ?? 0
    return "group \(worst) of \(count): got \(text(found, worst)); expected \(text(expected, worst))"
  }
}

extension Values {
  /// Index and bit patterns of the first value that differs; any NaN is as good as another.
  func firstDifference(from expected: Values) -> String? {
    for index in 0..<count where self[index].bitPattern != expected[index].bitPattern {
      if self[index].isNaN && expected[index].isNaN { continue }
      return "value \(index) of \(count): got \(self[index]), expected \(expected[index])"
    }
    return count == expected.count ? nil : "sizes differ"
  }
}
