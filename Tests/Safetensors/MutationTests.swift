import Bytes
import Foundation
import JSON
import Safetensors
import Tensors
import TestSupport
import Testing

/// Thousands of damaged files, always the same: each is accepted with every invariant in place or refused
/// with a typed failure. Each batch runs in a process of its own, which a trap would end.
///
/// `NIBBLE_FUZZ_SEEDS=1000` runs that many batches.
@Suite(.serialized) struct MutationTests {
  static var seeds: [UInt64] {
    let count = ProcessInfo.processInfo.environment["NIBBLE_FUZZ_SEEDS"].flatMap { UInt64($0) } ?? 6
    return Array(0..<count)
  }

  @Test(arguments: seeds) func damagedFiles(_ seed: UInt64) async {
    await #expect(processExitsWith: .success, "safetensors, seed \(seed)") { [seed] in
      MutationTests.runFiles(seed: seed, count: 2000)
    }
  }

  @Test(arguments: seeds) func damagedJSON(_ seed: UInt64) async {
    await #expect(processExitsWith: .success, "JSON, seed \(seed)") { [seed] in
      MutationTests.runJSON(seed: seed, count: 2000)
    }
  }

  /// Every value of every byte of a small header's first bytes, and every one-byte change elsewhere.
  @Test func everyByte() async {
    await #expect(processExitsWith: .success) {
      let bytes = SafetensorsBuilder.small.bytes
      for index in bytes.indices {
        for value in index < 16
          ? Array(0...255) : [0, 1, 0x20, 0x22, 0x2C, 0x30, 0x39, 0x5C, 0x5D, 0x7B, 0x7D, 0x7F, 0x80, 0xC3, 0xFF]
        {
          var copy = bytes
          copy[index] = UInt8(value)
          MutationTests.checkFile(copy, "byte \(index) = \(value)")
        }
      }
    }
  }

  static let files: [[UInt8]] =
    OddFile.safetensors.map { $0.bytes() }.filter { $0.count < 1000 } + [
      SafetensorsBuilder.small.bytes, SafetensorsBuilder.many(6),
    ]

  static func runFiles(seed: UInt64, count: Int) {
    var mutator = Mutator(seed: seed)
    var accepted = 0
    for number in 0..<count {
      let original = files[(number + Int(seed)) % files.count]
      var bytes = mutator.mutated(original)
      let header = Int(original[0]) | Int(original[1]) << 8
      if number % 2 == 0 { bytes = Mutator.withFittingLength(bytes, data: original.count - 8 - header) }
      if checkFile(bytes, "seed \(seed), case \(number)") { accepted += 1 }
    }
    // A harness whose every file is refused early would test nothing.
    guard accepted > count / 100 else { fail("only \(accepted) of \(count) files were accepted") }
  }

  /// True when the file is accepted; ends the process when an invariant does not hold.
  @discardableResult
  static func checkFile(_ bytes: [UInt8], _ name: String) -> Bool {
    guard let header = accepted(name, { () throws(Failure) in try SafetensorsHeader(ofFile: bytes) }) else {
      return false
    }
    var end = header.dataStart
    for (index, tensor) in header.tensors.enumerated() {
      guard header.range(of: index) == end..<(end + tensor.byteCount) else {
        fail("\(name): tensor \(index) is misplaced")
      }
      guard header.index(of: tensor.name) == index else { fail("\(name): tensor \(index) is not found by name") }
      end += tensor.byteCount
    }
    guard end == bytes.count else { fail("\(name): ends at \(end) of \(bytes.count)") }
    // Written again it says the same.
    guard
      let layout = accepted(
        name,
        { () throws(Failure) in
          try ShardLayout(layers: [[header.tensors]], maxShardSize: .max, metadata: header.metadata)
        }),
      let again = accepted(
        name,
        { () throws(Failure) in
          try SafetensorsHeader(ofFile: layout.shards[0].header + bytes[header.dataStart...])
        }),
      again.tensors == header.tensors, again.metadata.map(\.value) == header.metadata.map(\.value)
    else { fail("\(name): changed when written again") }
    return true
  }

  static let texts = [
    "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"shape\": [4096, 11008], \"nested_offset\": 0.0123e-05, \"x\": [null, true, {}]}",
    "{\"metadata\":{\"total_size\":24},\"weight_map\":{\"a\":\"s1.safetensors\",\"b\\u0061\":\"s2.safetensors\"}}",
    "[\"\\ud83d\\ude00\u{e9}e\u{301}\", -1.5E+10, [[[]]], \"\\\\\\\"\\/\"]",
  ].map { Array($0.utf8) }

  static func runJSON(seed: UInt64, count: Int) {
    var mutator = Mutator(seed: seed)
    var accepted = 0
    for number in 0..<count {
      let name = "seed \(seed), case \(number)"
      let bytes = mutator.mutated(texts[number % texts.count])
      let skipped = Self.accepted(name) { () throws(Failure) in
        var reader = JSONReader(bytes)
        try reader.skipValue()
        try reader.finish()
        return true
      }
      guard let value = Self.accepted(name, { () throws(Failure) in try JSONValue(parsing: bytes) }) else { continue }
      accepted += 1
      guard skipped == true else { fail("\(name): read but not skipped") }
      for style in [JSONStyle.compact, .line, .indented] {
        let text = Array(value.text(style).utf8)
        let again = Self.accepted(name) { () throws(Failure) in try JSONValue(parsing: text) }
        guard again == value else { fail("\(name): changed when written again") }
      }
    }
    guard accepted > count / 100 else { fail("only \(accepted) of \(count) texts were accepted") }
  }

  /// The value, or nil for a refusal that is fit to be shown.
  private static func accepted<T>(_ name: String, _ body: () throws(Failure) -> T) -> T? {
    do {
      return try body()
    } catch {
      let text = error.description
      guard [.malformed, .unsupported].contains(error.code), !text.utf8.contains(where: { $0 < 0x20 || $0 == 0x7F })
      else {
        fail("\(name): \(error.code) \(text)")
      }
      return nil
    }
  }

  private static func fail(_ message: String) -> Never {
    FileHandle.standardError.write(Data((message + "\n").utf8))
    exit(1)
  }
}
