import Kernels
import Testing

@testable import Quantization

/// One of the encoders: the kernel beside its twin.
struct KQuantEncoder: Sendable, CustomTestStringConvertible {
  typealias Kernel =
    @Sendable @convention(c) (
      UnsafePointer<Float>?, Int, Int, UnsafePointer<Float>?, UnsafeMutablePointer<UInt8>?
    ) -> Void
  typealias Twin = @Sendable ([Float], Int, [Float]?) -> [UInt8]

  /// As ggml's functions have it.
  var name: String
  var valuesPerBlock: Int
  var bytesPerBlock: Int
  /// Where the 16-bit factors of a block lie.
  var factorOffsets: [Int]
  var kernel: Kernel
  var twin: Twin
  var testDescription: String { name }

  static let all = [
    KQuantEncoder(
      name: "q2_K", valuesPerBlock: 256, bytesPerBlock: 84, factorOffsets: [80, 82], kernel: nibble_encode_q2_k,
      twin: Reference.encodeQ2K),
    KQuantEncoder(
      name: "q3_K", valuesPerBlock: 256, bytesPerBlock: 110, factorOffsets: [108], kernel: nibble_encode_q3_k,
      twin: Reference.encodeQ3K),
    KQuantEncoder(
      name: "q4_K", valuesPerBlock: 256, bytesPerBlock: 144, factorOffsets: [0, 2], kernel: nibble_encode_q4_k,
      twin: Reference.encodeQ4K),
    KQuantEncoder(
      name: "q5_K", valuesPerBlock: 256, bytesPerBlock: 176, factorOffsets: [0, 2], kernel: nibble_encode_q5_k,
      twin: Reference.encodeQ5K),
    KQuantEncoder(
      name: "q6_K", valuesPerBlock: 256, bytesPerBlock: 210, factorOffsets: [208], kernel: nibble_encode_q6_k,
      twin: Reference.encodeQ6K),
    KQuantEncoder(
      name: "iq4_nl", valuesPerBlock: 32, bytesPerBlock: 18, factorOffsets: [0], kernel: nibble_encode_iq4_nl,
      twin: Reference.encodeIQ4NL),
    KQuantEncoder(
      name: "iq4_xs", valuesPerBlock: 256, bytesPerBlock: 136, factorOffsets: [0], kernel: nibble_encode_iq4_xs,
      twin: Reference.encodeIQ4XS),
  ]

  /// What the kernel writes to an odd address, with the instruction set in use. Checks that it writes no more.
  func encode(_ values: [Float], rowLength: Int, importance: [Float]?) -> [UInt8] {
    let count = values.count / valuesPerBlock * bytesPerBlock
    var output = [UInt8](repeating: 0xA5, count: 1 + count + 64)
    output.withUnsafeMutableBufferPointer { output in
      let target = output.baseAddress.map { $0 + 1 }
      if let importance {
        kernel(values, values.count / rowLength, rowLength, importance, target)
      } else {
        kernel(values, values.count / rowLength, rowLength, nil, target)
      }
    }
    #expect(output[0] == 0xA5 && output[(1 + count)...].allSatisfy { $0 == 0xA5 }, "written beyond the output")
    return Array(output[1..<1 + count])
  }

  /// The worst block of the two in hexadecimal, nil when they agree.
  func difference(_ found: [UInt8], from expected: [UInt8]) -> String? {
    guard found.count == expected.count else { return "\(found.count) bytes, expected \(expected.count)" }
    func block(_ bytes: [UInt8], _ start: Int) -> ArraySlice<UInt8> { bytes[start..<start + bytesPerBlock] }
    func count(_ start: Int) -> Int { zip(block(found, start), block(expected, start)).count { $0 != $1 } }
    let starts = stride(from: 0, to: found.count, by: bytesPerBlock)
    guard let worst = starts.max(by: { count($0) < count($1) }), count(worst) > 0 else { return nil }
    return "block \(worst / bytesPerBlock) of \(found.count / bytesPerBlock) differs in \(count(worst)) bytes: "
      + "got \(block(found, worst).hex), expected \(block(expected, worst).hex)"
  }
}
