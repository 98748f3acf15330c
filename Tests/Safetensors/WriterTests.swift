import Bytes
import JSON
import Safetensors
import Tensors
import TestSupport
import Testing

@Suite struct WriterTests {
  static let shapes: [[Int]] = [[], [0], [1], [8], [3, 8], [2, 0, 4], [1, 1, 1, 16], [2, 3, 4, 8], [16, 5]]

  /// Every dtype × shape, in files of their own, read back by name, at once and in pieces.
  @Test(arguments: ElementType.allCases) func roundTrip(_ type: ElementType) throws {
    var generator = SplitMix64(seed: UInt64(type.rawValue))
    let infos = try Self.shapes.compactMap { shape -> TensorInfo? in
      let elements = shape.reduce(1, *)
      // A scalar narrower than a byte cannot be stored.
      if elements * type.bitWidth % 8 != 0 { return nil }
      return try TensorInfo(name: TensorName("t\(shape)"), type: type, shape: shape)
    }
    let data = infos.map { info in (0..<info.byteCount).map { _ in UInt8.random(in: 0...255, using: &generator) } }
    let temporary = try TemporaryDirectory()
    let path = temporary.path("out.safetensors")
    var writer = try SafetensorsFileWriter(
      path: path, tensors: infos, metadata: [("format", "pt"), ("né\u{1b}", "\"\\\n")])
    for index in infos.indices.shuffled(using: &generator) {
      let bytes = data[index]
      let middle = bytes.count / 3
      try writer.write(index, at: middle, bytes.span.bytes.extracting(droppingFirst: middle))
      try writer.write(index, at: 0, bytes.span.bytes.extracting(first: middle))
    }
    #expect(try temporary.names.allSatisfy { $0 != "out.safetensors" })
    try writer.commit()
    #expect(try temporary.names == ["out.safetensors"])

    let file = try SafetensorsFile(path: path)
    #expect(Set(file.tensors.map(\.name)) == Set(infos.map(\.name)) && file.header.warnings.isEmpty)
    #expect(file.header.dataStart % 4096 == 0)
    #expect(file.header.metadata.map(\.key) == ["format", "né\u{1b}"])
    #expect(file.header.metadata.map(\.value) == ["pt", "\"\\\n"])
    for (info, bytes) in zip(infos, data) {
      let index = try #require(file.header.index(of: info.name))
      #expect(file.tensors[index] == info)
      #expect(try file.bytes(of: info.name) == bytes)
    }
  }

  @Test func headerBytes() throws {
    let tensors = [
      try TensorInfo(name: "b\u{202e}", type: .bf16, shape: [2, 3]), try TensorInfo(name: "a", type: .u8, shape: []),
    ]
    let layout = try ShardLayout(layers: [[tensors]], maxShardSize: 1000)
    let json =
      #"{"__metadata__":{"format":"pt"},"b\u202e":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},"#
      + #""a":{"dtype":"U8","shape":[],"data_offsets":[12,13]}}"#
    let padding = [UInt8](repeating: 0x20, count: 4096 - 8 - json.utf8.count)
    #expect(layout.shards[0].header == [0xF8, 0x0F, 0, 0, 0, 0, 0, 0] + Array(json.utf8) + padding)
    #expect(layout.shards[0].offsets == [4096, 4108] && layout.shards[0].size == 4109)
    #expect(layout.shards[0].name == "model.safetensors" && layout.indexName == nil)
    #expect(layout.dataSize == 13 && layout.size == 4109)
  }

  /// The header grows by whole pages, whatever the length of its text.
  @Test func dataBeginsOnAPage() throws {
    for length in (3950...4000) {
      let name = TensorName(String(repeating: "n", count: length))
      let layout = try ShardLayout(
        layers: [[[try TensorInfo(name: name, type: .u8, shape: [1])]]], maxShardSize: 1, metadata: [])
      let header = layout.shards[0].header
      #expect(header.count == (length + 54 + 8 <= 4096 ? 4096 : 8192))
      #expect(try SafetensorsHeader(ofFile: header + [7]).tensors[0].name == name)
    }
  }

  @Test func missingBytesAreNoticed() throws {
    let temporary = try TemporaryDirectory()
    let tensors = [try TensorInfo(name: "a", type: .u8, shape: [4]), try TensorInfo(name: "b", type: .u8, shape: [2])]
    let failure = try #require(throws: Failure.self) {
      var writer = try SafetensorsFileWriter(path: temporary.path("m.safetensors"), tensors: tensors)
      try writer.write(0, [1, 2, 3, 4])
      try writer.commit()
    }
    #expect(failure.code == .internal && failure.tensor == "b" && failure.message == "2 bytes were not written")
    #expect(try temporary.names.isEmpty)
  }

  @Test func tooManyBytesAreRefused() throws {
    let temporary = try TemporaryDirectory()
    let tensors = [try TensorInfo(name: "a", type: .u8, shape: [4]), try TensorInfo(name: "b", type: .u8, shape: [2])]
    var writer = try SafetensorsFileWriter(path: temporary.path("m.safetensors"), tensors: tensors)
    for (offset, count) in [(0, 5), (1, 4), (4, 1), (-1, 1)] {
      do {
        let bytes = [UInt8](repeating: 0, count: count)
        try writer.write(0, at: offset, bytes.span.bytes)
        Issue.record("\(count) bytes at \(offset) were written")
      } catch { #expect(error.code == .internal) }
    }
  }

  /// A file that comes into being under the name in the meantime is kept too, and nothing else is left.
  @Test func aNameTakenMeanwhile() throws {
    let temporary = try TemporaryDirectory()
    let tensors = [try TensorInfo(name: "a", type: .u8, shape: [1])]
    let failure = try #require(throws: Failure.self) {
      var writer = try SafetensorsFileWriter(path: temporary.path("m.safetensors"), tensors: tensors)
      try writer.write(0, [9])
      try temporary.write("m.safetensors", [7])
      try writer.commit()
    }
    #expect(failure.code == .cannotCreate)
    #expect(try temporary.names == ["m.safetensors"] && temporary.read("m.safetensors") == [7])
  }

  @Test func places() throws {
    let temporary = try TemporaryDirectory()
    let tensors = [try TensorInfo(name: "a", type: .u8, shape: [1])]
    for path in [temporary.path("no/such/a"), temporary.path("a\nb"), "/", ".."] {
      let failure = try #require(throws: Failure.self) { _ = try SafetensorsFileWriter(path: path, tensors: tensors) }
      #expect(failure.code == .cannotCreate, "\(path)")
    }
    #expect(try temporary.names.isEmpty)
  }

  @Test func anExistingFileIsKept() throws {
    let temporary = try TemporaryDirectory()
    let path = try temporary.write("m.safetensors", [1, 2, 3])
    let tensors = [try TensorInfo(name: "a", type: .u8, shape: [1])]
    do {
      _ = try SafetensorsFileWriter(path: path, tensors: tensors)
      Issue.record("an existing file would be replaced")
    } catch { #expect(error.code == .cannotCreate) }
    #expect(try temporary.names == ["m.safetensors"])
    #expect(try temporary.read("m.safetensors") == [1, 2, 3])
    var second = try SafetensorsFileWriter(path: path, tensors: tensors, replacing: true)
    try second.write(0, [9])
    try second.commit()
    #expect(try SafetensorsFile(path: path).bytes(of: "a") == [9])
  }
}
