import Bytes
import Tensors
import TestSupport
import Testing

@testable import GGUF

/// What is planned for writing is what the reader then finds.
@Suite struct LayoutTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func tensor(_ name: String, _ count: Int, _ type: GGMLType = .i8) throws -> GGUFTensor {
    try GGUFTensor(name: TensorName(name), type: type, shape: [count])
  }

  /// Writes the planned files with data that is the tensor's number, and opens them.
  private func written(_ layout: GGUFLayout, _ tensors: [GGUFTensor]) throws -> GGUFCheckpoint {
    for file in layout.files {
      var bytes = file.header
      for (index, offset) in zip(file.tensors, file.offsets) {
        #expect(offset % layout.alignment == 0 && offset >= bytes.count && offset < bytes.count + layout.alignment)
        bytes += [UInt8](repeating: 0, count: offset - bytes.count)
        bytes += [UInt8](repeating: UInt8(index), count: tensors[index].byteCount)
      }
      #expect(bytes.count <= file.size && file.size % layout.alignment == 0)
      try directory.write(file.name, bytes + [UInt8](repeating: 0, count: file.size - bytes.count))
    }
    return try GGUFCheckpoint(path: directory.path(layout.files[0].name))
  }

  @Test(arguments: [1, 8, 32, 4096]) func thereAndBack(_ alignment: Int) throws {
    var metadata = GGUFMetadata([("general.architecture", .text("test")), ("k", .int64(-1))])
    if alignment != 32 { metadata["general.alignment"] = .uint32(UInt32(alignment)) }
    let tensors = [
      try tensor("a", 3), try tensor("empty", 0), try GGUFTensor(name: "b", type: .q4_0, shape: [2, 3, 64]),
      try GGUFTensor(name: "scalar", type: .f32, shape: []), try tensor("last", 31),
    ]
    let layout = try GGUFLayout(name: "m.gguf", metadata: metadata, tensors: tensors)
    #expect(layout.alignment == alignment && layout.files.count == 1 && layout.byteCount == layout.files[0].size)
    let checkpoint = try written(layout, tensors)
    #expect(checkpoint.tensors == tensors && checkpoint.warnings.isEmpty)
    #expect(checkpoint.files.map(\.alignment) == [alignment] && checkpoint.files[0].version == 3)
    #expect(checkpoint.files[0].dataStart == layout.files[0].header.count)
    #expect(tensors.indices.map { checkpoint.location(of: $0).offset } == layout.files[0].offsets)
    #expect(checkpoint.metadata.pairs.map(\.key) == metadata.pairs.map(\.key))
    var bytes = [UInt8](repeating: 0, count: 5)
    try checkpoint.read(2, at: 7, into: &bytes)
    #expect(bytes == [2, 2, 2, 2, 2])
    #expect(throws: Failure.self) { try checkpoint.read(0, at: 0, into: &bytes) }
    #expect(throws: Failure.self) { try checkpoint.read(2, at: -1, into: &bytes) }
  }

  /// What a reader has read is written again byte for byte, every type of value included.
  @Test func byteStability() throws {
    var builder = GGUFBuilder.small
    builder.pairs += [
      .init("u8", .uint8(1)), .init("i8", .int8(-1)), .init("u16", .uint16(1)), .init("i16", .int16(-1)),
      .init("i32", .int32(-1)), .init("u64", .uint64(.max)), .init("i64", .int64(.min)), .init("f64", .float64(0.1)),
      .init("nan", .float32(Float(nan: 5, signaling: false))), .init("raw", .string([0xFF, 0])),
      .init("deep", .array([.array([.strings(["a"]), .array([.bool(1)])]), .array([])])),
    ]
    for type in UInt32(0)...12 { builder.pairs.append(.init("empty\(type)", .array(of: type, count: 0, []))) }
    for alignment in [32, 256] {
      if alignment != 32 { builder.set("general.alignment", .uint32(UInt32(alignment))) }
      builder.alignment = alignment
      let path = try directory.write("m.gguf", builder.bytes)
      let read = try GGUFCheckpoint(path: path)
      let layout = try GGUFLayout(name: "m.gguf", metadata: read.metadata, tensors: read.tensors)
      #expect(layout.files[0].header == Array(builder.bytes.prefix(builder.dataStart)))
      #expect(layout.files[0].size == builder.bytes.count)
      // An older version becomes the current one.
      builder.version = 2
      let old = try GGUFCheckpoint(path: directory.write("old.gguf", builder.bytes))
      let again = try GGUFLayout(name: "m.gguf", metadata: old.metadata, tensors: old.tensors)
      #expect(again.files[0].header == layout.files[0].header)
      builder.version = 3
    }
  }

  @Test func splits() throws {
    var metadata = GGUFMetadata([("general.architecture", .text("test")), ("general.alignment", .uint32(64))])
    // Of an earlier split.
    metadata["split.count"] = .uint16(9)
    let tensors = try (0..<5).map { try tensor("t\($0)", 100) }
    let layout = try GGUFLayout(name: "m.gguf", metadata: metadata, tensors: tensors, maxShardBytes: 256)
    #expect(layout.files.map(\.tensors) == [0..<2, 2..<4, 4..<5])
    #expect(layout.files.map(\.name) == (1...3).map { "m-0000\($0)-of-00003.gguf" })
    let checkpoint = try written(layout, tensors)
    #expect(checkpoint.tensors == tensors && checkpoint.files.map(\.tensors) == layout.files.map(\.tensors))
    #expect(checkpoint.files.map(\.alignment) == [64, 64, 64])
    for (number, file) in layout.files.enumerated() {
      let own = try GGUFHeader(of: InputFile(path: directory.path(file.name))).metadata
      #expect(try own.integer("split.no") == number && own.integer("split.count") == 3)
      #expect(try own.integer("split.tensors.count") == 5)
      // Types that llama.cpp insists on.
      #expect(own["split.no"]?.type == .uint16 && own["split.count"]?.type == .uint16)
      #expect(own["split.tensors.count"]?.type == .int32)
      #expect((own["general.architecture"] != nil) == (number == 0))
    }
    // Any file of it, and the directory, are the whole.
    for name in layout.files.map(\.name) {
      #expect(try GGUFCheckpoint(path: directory.path(name)).tensors == tensors)
    }
    #expect(try GGUFCheckpoint(path: directory.path).tensors == tensors)
    // What fits into one file is not split, and says nothing of splits.
    let whole = try GGUFLayout(name: "m.gguf", metadata: checkpoint.metadata, tensors: tensors, maxShardBytes: 640)
    #expect(whole.files.map(\.name) == ["m.gguf"])
    let alone = try written(whole, tensors)
    #expect(alone.metadata.pairs.map(\.key) == ["general.architecture", "general.alignment"])
  }

  @Test(arguments: [
    (1, [1, 1, 1]), (31, [1, 1, 1]), (32, [1, 1, 1]), (63, [1, 1, 1]), (64, [2, 1]), (95, [2, 1]), (96, [3]),
    (Int.max, [3]),
  ])
  func shardSizes(limit: Int, expected: [Int]) throws {
    let tensors = try ["a", "b", "c"].map { try tensor($0, 32) }
    let layout = try GGUFLayout(name: "m", metadata: GGUFMetadata(), tensors: tensors, maxShardBytes: limit)
    #expect(layout.files.map(\.tensors.count) == expected)
  }

  @Test func refusals() throws {
    func refused(
      _ tensors: [GGUFTensor], _ metadata: GGUFMetadata = GGUFMetadata(), maxShardBytes: Int = .max
    ) -> Failure? {
      #expect(throws: Failure.self) {
        _ = try GGUFLayout(name: "m.gguf", metadata: metadata, tensors: tensors, maxShardBytes: maxShardBytes)
      }
    }
    #expect(refused([try tensor("a", 1), try tensor("a", 2)])?.message == "two tensors would have this name")
    // The format allows 64 bytes, ggml 63.
    let long = refused([try tensor(String(repeating: "n", count: 64), 1)])
    #expect(long?.message == "the name has 64 bytes, ggml reads 63 at most")
    let fits = try tensor(String(repeating: "n", count: 63), 1)
    #expect(throws: Never.self) { try GGUFLayout(name: "m", metadata: GGUFMetadata(), tensors: [fits]) }
    for alignment in [0, 7, 1 << 21] as [UInt32] {
      let failure = refused([], GGUFMetadata([("general.alignment", .uint32(alignment))]))
      #expect(failure?.message == "general.alignment is \(alignment), allowed are powers of two")
    }
    #expect(refused([], GGUFMetadata([("general.alignment", .text("32"))]))?.code == .malformed)
    // Sizes that no file has.
    let huge = try tensor("huge", .max - 31)
    for tensors in [[try tensor("max", .max)], [huge, try tensor("b", 64)], [huge]] {
      let failure = refused(tensors)
      #expect(failure?.message == "the file would be larger than 63 bits can count", "\(tensors.map(\.byteCount))")
    }
    let many = try (0...65_535).map { try tensor("\($0)", 1) }
    let failure = refused(many, maxShardBytes: 1)
    #expect(failure?.code == .usage && failure?.message == "would take 65536 files, GGUF allows 65535")
  }

  @Test func noTensors() throws {
    let layout = try GGUFLayout(name: "m.gguf", metadata: GGUFMetadata([("k", .uint8(1))]), tensors: [])
    #expect(layout.files.count == 1 && layout.files[0].tensors.isEmpty)
    let checkpoint = try written(layout, [])
    #expect(checkpoint.tensors.isEmpty && checkpoint.warnings.isEmpty)
  }
}
