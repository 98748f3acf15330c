import Bytes
import Checkpoints
import JSON
import Safetensors
import Tensors
import TestSupport
import Testing

@testable import Writing

/// Tensors whose sizes are not known before they have been written.
@Suite struct BoundedSizeTests {
  /// Stores the bytes that are not 0, one after the other.
  private struct NonzeroEncoder: TensorEncoder {
    func outputs(for weight: TensorInfo) -> [StoredTensor] {
      [StoredTensor(TensorName(weight.name.string + ".packed"), atMost: weight.byteCount)]
    }

    func encode(_ piece: Piece, from input: PieceInput, into buffer: PieceBuffer) throws(Failure) {
      let values = try buffer.read(input)
      var kept: [UInt8] = []
      for at in 0..<values.byteCount where values.load(at: at, as: UInt8.self) != 0 {
        kept.append(values.load(at: at, as: UInt8.self))
      }
      var output = buffer.makeOutput(kept.count)
      output.copy(from: kept.span.rawBytes)
    }
  }

  private struct Fixture {
    let directory: TemporaryDirectory
    let report: RunReport
    /// The bytes that each tensor is expected to have, by its stored name.
    let expected: [String: [UInt8]]
  }

  /// - Parameter zeros: how many of each 4 bytes are 0.
  private func write(zeros: [Int], limit: Int = .max, sha256: Bool = false) throws -> Fixture {
    let directory = try TemporaryDirectory()
    var tensors: [SafetensorsBuilder.Tensor] = []
    var expected: [String: [UInt8]] = [:]
    for (number, zeros) in zeros.enumerated() {
      let bytes = (0..<1_100_000 + number).map { $0 % 4 < zeros ? 0 : UInt8(truncatingIfNeeded: $0 % 255 + 1) }
      tensors.append(.init("layers.\(number).a", "U8", [bytes.count], bytes))
      expected["layers.\(number).a.packed"] = bytes.filter { $0 != 0 }
      tensors.append(.init("layers.\(number).b", "F32", [16], Array(repeating: UInt8(number), count: 64)))
      expected["layers.\(number).b"] = Array(repeating: UInt8(number), count: 64)
    }
    let source = try MemorySource(tensors)
    let steps = source.tensors.indices.map { Step(tensor: $0, encoder: $0 % 2, origin: .stored($0)) }
    let plan = try StepLayout(maxShardBytes: limit).plan(
      steps, [NonzeroEncoder(), CopyEncoder()], source: source, stored: source)
    var options = RunOptions()
    options.sha256 = sha256
    options.progress = .silent
    let run = WriteRun(
      plan: plan, destination: DirectoryDestination(), operation: "pack", activity: "packing", recorded: [],
      warnings: [], options: options, inputs: RunInputs(identities: []) { () throws(Failure) in })
    let report = try run.run(into: directory.path("out")) { _ in }
    return Fixture(directory: directory, report: report, expected: expected)
  }

  private func check(_ fixture: Fixture) throws {
    let checkpoint = try SafetensorsCheckpoint(path: fixture.directory.path("out"))
    #expect(checkpoint.warnings.isEmpty)
    #expect(Set(checkpoint.tensors.map(\.name.string)) == Set(fixture.expected.keys))
    for (index, info) in checkpoint.tensors.enumerated() {
      let expected = try #require(fixture.expected[info.name.string])
      try #require(info.byteCount == expected.count)
      #expect(try checkpoint.bytes(index) == expected, "\(info.name)")
    }
    // Every digest and place in the manifest, and the sizes that are reported.
    let manifest = try Manifest(
      InputFile(path: fixture.directory.path("out/" + Manifest.fileName), name: Manifest.fileName))
    var total = 0
    for entry in manifest.files {
      let bytes = try fixture.directory.read("out/" + entry.name)
      var hasher = XXH3Hasher()
      hasher.update(bytes.span.rawBytes)
      #expect(entry.size == bytes.count)
      #expect(entry.xxh128 == hasher.digest128, "\(entry.name)")
      if entry.name.hasSuffix(".safetensors") { total += bytes.count }
      if let sha256 = entry.sha256 {
        var hasher = SHA256Hasher()
        hasher.update(bytes.span.rawBytes)
        #expect(sha256 == hasher.finish())
      }
    }
    #expect(fixture.report.bytesOut == total)
    for tensor in manifest.tensors {
      let expected = try #require(fixture.expected[tensor.name.string])
      let file = try fixture.directory.read("out/" + manifest.files[tensor.file].name)
      #expect(Array(file[tensor.offset..<tensor.offset + tensor.byteCount]) == expected)
    }
  }

  /// From nothing left to nothing saved.
  @Test(arguments: [[0], [4], [2, 0, 3], [4, 4]]) func sizes(_ zeros: [Int]) throws {
    try check(write(zeros: zeros))
  }

  @Test func shards() throws {
    let fixture = try write(zeros: [1, 3, 2], limit: 1_500_000, sha256: true)
    #expect(fixture.report.files.filter { $0.hasSuffix(".safetensors") }.count == 3)
    try check(fixture)
    let index = try JSONValue(
      parsing: fixture.directory.read("out/model.safetensors.index.json"))
    let expected = fixture.expected.values.reduce(0) { $0 + $1.count }
    #expect(index["metadata"]?["total_size"] == .number(expected))
  }

  /// 300 sizes with fewer digits than their bounds: the header is a page shorter, and its room is filled.
  @Test func headerKeepsItsRoom() throws {
    func tensors(shape: [Int]) throws -> [TensorInfo] {
      try (0..<300).map { try TensorInfo(name: TensorName("\($0)"), type: .u8, shape: shape) }
    }
    let bound = try SafetensorsHeader.encode(
      tensors(shape: [1_000_000_000]), metadata: [])
    let settled = try tensors(shape: [1])
    let header = try SafetensorsHeader.encode(settled, metadata: [], room: bound.count)
    #expect(try SafetensorsHeader.encode(settled, metadata: []).count < bound.count)
    #expect(header.count == bound.count)
    #expect(throws: Failure.self) { try SafetensorsHeader.encode(settled, metadata: [], room: 4096) }
  }
}
