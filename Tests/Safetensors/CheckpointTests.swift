import Bytes
import Foundation
import Safetensors
import Tensors
import TestSupport
import Testing

@Suite struct CheckpointTests {
  @Test(arguments: HostileDirectory.safetensors + [.gguf, .pytorch])
  func verdict(_ row: HostileDirectory) throws {
    let temporary = try TemporaryDirectory()
    let path = try row.make(in: temporary.path)
    if row.exitCode == 0 {
      let checkpoint = try SafetensorsCheckpoint(path: path)
      #expect(!checkpoint.tensors.isEmpty)
      if let message = row.message {
        #expect(checkpoint.warnings.contains { $0.contains(message) }, "\(checkpoint.warnings)")
      } else {
        #expect(checkpoint.warnings.isEmpty)
      }
      return
    }
    let failure = try #require(throws: Failure.self) { _ = try SafetensorsCheckpoint(path: path) }
    #expect(failure.code.rawValue == row.exitCode)
    #expect(failure.description.contains(try #require(row.message)), "\(failure)")
    if let tensor = row.tensor { #expect(failure.tensor == tensor) }
    #expect(failure.file != nil)
    #expect(!failure.description.utf8.contains { $0 < 0x20 || $0 == 0x7F })
  }

  @Test func whatIsMissingIsSaid() throws {
    let temporary = try TemporaryDirectory()
    let failure = try #require(throws: Failure.self) { _ = try SafetensorsCheckpoint(path: temporary.path("nothing")) }
    #expect(failure.code == .missing)
  }

  /// Checks everything a checkpoint says against the builders that made it.
  private func check(_ checkpoint: SafetensorsCheckpoint, _ shards: [(name: String, builder: SafetensorsBuilder)])
    throws
  {
    #expect(checkpoint.files.map(\.name) == shards.map(\.name))
    var position = 0
    for (number, shard) in shards.enumerated() {
      let file = checkpoint.files[number]
      let bytes = shard.builder.bytes
      #expect(file.size == bytes.count && file.dataStart == 8 + shard.builder.json.utf8.count)
      #expect(file.tensors == position..<(position + shard.builder.tensors.count))
      for tensor in shard.builder.tensors {
        let info = checkpoint.tensors[position]
        #expect(info.name == TensorName(tensor.name) && info.type.name == tensor.dtype && info.shape == tensor.shape)
        #expect(checkpoint.index(of: info.name) == position && checkpoint.fileIndex(of: position) == number)
        let location = checkpoint.location(of: position)
        #expect(location.file == shard.name)
        #expect(Array(bytes[location.offset..<(location.offset + info.byteCount)]) == tensor.data)
        var read = [UInt8](repeating: 0xEE, count: max(0, info.byteCount - 1))
        try checkpoint.read(position, at: min(1, info.byteCount), into: &read)
        #expect(read == Array(tensor.data.dropFirst()))
        position += 1
      }
    }
    #expect(position == checkpoint.tensors.count)
    try checkpoint.checkUnchanged()
  }

  /// More shards than stay open at once.
  @Test func manyShards() throws {
    let temporary = try TemporaryDirectory()
    var shards: [(name: String, builder: SafetensorsBuilder)] = []
    var map: [String] = []
    for number in 1...40 {
      let name = String(format: "model-%05d-of-00040.safetensors", number)
      let builder = SafetensorsBuilder(
        [
          .init("layer.\(number).w", "F32", [2, 2], (0..<16).map { UInt8($0 + number) }),
          .init("layer.\(number).empty", "F16", [0], []),
          .init("layer.\(number).b", "U8", [3], [1, 2, UInt8(number)]),
        ], metadata: "{\"format\":\"pt\",\"shard\":\"\(number)\"}")
      shards.append((name, builder))
      try temporary.write(name, builder.bytes)
      map += builder.tensors.map { "\"\($0.name)\":\"\(name)\"" }
    }
    try temporary.write(
      "model.safetensors.index.json",
      Array("{\"metadata\":{\"total_size\":760},\"weight_map\":{\(map.shuffled().joined(separator: ","))}}".utf8))
    let checkpoint = try SafetensorsCheckpoint(path: temporary.path)
    #expect(checkpoint.warnings.isEmpty && checkpoint.indexName == "model.safetensors.index.json")
    #expect(checkpoint.metadata.map(\.key) == ["format", "shard"] && checkpoint.metadata.last?.value == "1")
    try check(checkpoint, shards)
    #expect(checkpoint.identities.count == 40)
    #if os(Linux)
      // The directory itself and the few shards used last.
      #expect(openDescriptors(below: temporary.path) <= 5)
    #endif
  }

  #if os(Linux)
    private func openDescriptors(below path: String) -> Int {
      (0..<1024).filter { number in
        let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(number)")
        return target?.hasPrefix(path) ?? false
      }.count
    }
  #endif

  @Test func singleFile() throws {
    let temporary = try TemporaryDirectory()
    let path = try temporary.write("weights", SafetensorsBuilder.small.bytes)
    let checkpoint = try SafetensorsCheckpoint(path: path)
    #expect(checkpoint.directory == nil && checkpoint.indexName == nil)
    try check(checkpoint, [("weights", .small)])
    #expect(checkpoint.index(of: "nothing") == nil)
  }

  @Test func changedInputIsNoticed() throws {
    let temporary = try TemporaryDirectory()
    for row in HostileDirectory.safetensors where row.name == "two shards" { _ = try row.make(in: temporary.path) }
    let checkpoint = try SafetensorsCheckpoint(path: temporary.path)
    try checkpoint.checkUnchanged()
    try temporary.write("s1.safetensors", SafetensorsBuilder.small.bytes)
    let failure = try #require(throws: Failure.self) { try checkpoint.checkUnchanged() }
    #expect(failure.code == .io && failure.file == "s1.safetensors")
  }

  @Test func readsOutsideTheTensorAreRefused() throws {
    let temporary = try TemporaryDirectory()
    let checkpoint = try SafetensorsCheckpoint(
      path: try temporary.write("m.safetensors", SafetensorsBuilder.small.bytes))
    var buffer = [UInt8](repeating: 0, count: 7)
    let failure = try #require(throws: Failure.self) {
      try checkpoint.read(1, at: 0, into: &buffer)
    }
    #expect(failure.code == .internal && failure.tensor == "b.weight")
  }
}
