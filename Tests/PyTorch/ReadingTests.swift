import Bytes
import Foundation
import PyTorch
import Tensors
import TestSupport
import Testing

/// What comes out of files put together by hand.
@Suite struct ReadingTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func floats(_ bytes: [UInt8]) -> [Float] {
    stride(from: 0, to: bytes.count, by: 4).map { at in
      Float(bitPattern: (0..<4).reduce(0) { $0 | UInt32(bytes[at + $1]) << UInt32(8 * $1) })
    }
  }

  @Test func theExample() throws {
    let file = try opened(TorchBuilder.zip(TorchBuilder.example, [("0", TorchBuilder.exampleData)]), in: directory)
    #expect(try file.tensors == [TensorInfo(name: "a.weight", type: .bf16, shape: [2, 3])])
    #expect(try file.bytes(0) == TorchBuilder.exampleData)
    #expect(file.contents.root == nil && file.contents.ignored.isEmpty && file.contents.tied.isEmpty)
    let place = try #require(file.place(of: 0))
    #expect(place % 64 == 0)
    #expect(try directory.read("m.bin")[place..<place + 12].elementsEqual(TorchBuilder.exampleData))
    try file.checkUnchanged()
    try directory.write("m.bin", [1])
    #expect(throws: Failure.self) { try file.checkUnchanged() }
  }

  /// The same tensors from an archive and from a file as before 1.6.
  @Test(arguments: [true, false]) func views(_ isZip: Bool) throws {
    let bytes =
      isZip ? TorchBuilder.zip(TorchBuilder.mixed, TorchBuilder.mixedStorages) : TorchBuilder.mixedLegacy
    let file = try opened(bytes, in: directory)
    #expect(file.tensors.map(\.name) == ["t", "u", "v", "e", "n"])
    #expect(file.tensors.map(\.shape) == [[3, 2], [2, 3], [2, 3], [2, 3], [0, 3]])
    #expect(try floats(file.bytes(0)) == [0, 3, 1, 4, 2, 5])
    #expect(try floats(file.bytes(1)) == [0, 1, 2, 3, 4, 5])
    #expect(try file.bytes(3) == [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6])
    #expect(try file.bytes(4) == [])
    #expect(file.contents.tied == [[1, 2]] && file.contents.ignored == ["epoch"])
    #expect(file.place(of: 0) == nil && file.place(of: 1) != nil && file.place(of: 1) == file.place(of: 2))
    #expect((0..<5).map { file.storedByteCount(of: $0) } == [24, 24, 24, 6, 0])
    // Every part, also from within an element to within another.
    for index in file.tensors.indices {
      let whole = try file.bytes(index)
      for start in 0...whole.count {
        for end in start...whole.count {
          #expect(try file.bytes(index, start..<end) == Array(whole[start..<end]))
        }
      }
    }
    var room = [UInt8](repeating: 0, count: 2)
    let failure = try #require(throws: Failure.self) { try file.read(3, at: 11, into: &room) }
    #expect(failure.code == .internal && failure.tensor == "e")
  }

  @Test(arguments: ["state_dict", "model", "module", "model_state_dict"]) func roots(_ root: String) throws {
    let inner = Pickle.dictionary([("w", Pickle.tensor(Pickle.storage(6), [6])), ("step", Pickle.integer(4))])
    let value = Pickle.dictionary([("epoch", Pickle.integer(3)), (root, inner)])
    let file = try opened(TorchBuilder.zip(Pickle.whole(value), TorchBuilder.six), in: directory)
    #expect(file.contents.root == root && file.contents.ignored == ["epoch", "step"])
    #expect(file.tensors.map(\.name) == ["w"])
  }

  /// Types that a storage has and types that the tensor names.
  @Test(arguments: [
    ("DoubleStorage", "F64", 8), ("FloatStorage", "F32", 4), ("HalfStorage", "F16", 2), ("BFloat16Storage", "BF16", 2),
    ("LongStorage", "I64", 8), ("IntStorage", "I32", 4), ("ShortStorage", "I16", 2), ("CharStorage", "I8", 1),
    ("ByteStorage", "U8", 1), ("BoolStorage", "BOOL", 1), ("ComplexFloatStorage", "C64", 8),
    ("float8_e4m3fn", "F8_E4M3", 1), ("float8_e5m2", "F8_E5M2", 1), ("float8_e4m3fnuz", "F8_E4M3FNUZ", 1),
    ("float8_e5m2fnuz", "F8_E5M2FNUZ", 1), ("float8_e8m0fnu", "F8_E8M0", 1), ("uint16", "U16", 2),
    ("uint32", "U32", 4), ("uint64", "U64", 8), ("bfloat16", "BF16", 2), ("float4_e2m1fn_x2", "F4", 1),
  ]) func types(_ name: String, _ type: String, _ width: Int) throws {
    let data = (0..<UInt8(6 * width)).map(\.self)
    let isClass = name.hasSuffix("Storage")
    // Transposed: it is read element by element.
    for module in isClass ? ["torch", "torch.cuda"] : ["torch.storage"] {
      let storage = Pickle.storage(
        isClass ? 6 : 6 * width, isClass ? name : "UntypedStorage", module: module, location: "cuda:0")
      let tensor = Pickle.tensor(
        storage, [3, 2], strides: [1, 3], more: isClass ? [] : [Pickle.global("torch", name)])
      let file = try opened(
        TorchBuilder.zip(Pickle.whole(Pickle.dictionary([("w", tensor)])), [("0", data)]), in: directory)
      #expect(file.tensors[0].type.name == type && file.tensors[0].shape == [3, type == "F4" ? 4 : 2])
      let expected = [0, 3, 1, 4, 2, 5].flatMap { data[$0 * width..<($0 + 1) * width] }
      #expect(try file.bytes(0) == expected)
    }
  }

  @Test func parametersAndOldTensors() throws {
    let storage = Pickle.storage(6)
    let old = Pickle.call(
      "torch._utils", "_rebuild_tensor", [storage, Pickle.integer(2), Pickle.integers([2]), Pickle.integers([3])])
    let shape = Pickle.call("torch", "Size", [Pickle.integers([4])])
    let sized = Pickle.call(
      "torch._utils", "_rebuild_tensor_v2",
      [storage, Pickle.integer(1), shape, Pickle.integers([1]), [0x89], Pickle.orderedDictionary])
    let parameter = Pickle.call("torch._utils", "_rebuild_parameter", [sized, [0x88], Pickle.orderedDictionary])
    let file = try opened(
      TorchBuilder.zip(Pickle.whole(Pickle.dictionary([("p", parameter), ("o", old)])), TorchBuilder.six), in: directory
    )
    #expect(file.tensors.map(\.name) == ["p", "o"])
    #expect(try floats(file.bytes(0)) == [1, 2, 3, 4])
    #expect(try floats(file.bytes(1)) == [2, 5])
  }

  /// Tensors anywhere in the graph, for those who know what is around them.
  @Test func anyNode() throws {
    let value = Pickle.list([Pickle.integer(1), Pickle.tensor(Pickle.storage(6), [6])])
    try directory.write("m.bin", TorchBuilder.zip(Pickle.whole(value), TorchBuilder.six))
    let file = try InputFile(path: directory.path("m.bin"))
    let archive = try PyTorchArchive(file)
    let items = try #require(archive.graph.items(archive.graph.root))
    #expect(items.map { archive.isTensor($0) } == [false, true] && !archive.isLegacy)
    let tensor = try archive.tensor(of: items[1], named: "x")
    #expect(tensor.isContiguous && tensor.storageKey == "0" && tensor.offset == 0 && tensor.strides == [1])
    #expect(throws: Failure.self) { _ = try archive.tensor(of: items[0], named: "x") }
  }

  /// An archive that lies in the middle of a file, at no particular place.
  @Test func aSlice() throws {
    let inner = TorchBuilder.zip(TorchBuilder.example, [("0", TorchBuilder.exampleData)])
    try directory.write("m.bin", [9, 9, 9] + inner + inner)
    let file = try InputFile(path: directory.path("m.bin"))
    for start in [3, 3 + inner.count] {
      let archive = try PyTorchArchive(FileSlice(file, offset: start, length: inner.count))
      let tensor = try PyTorchContents(archive).tensors[0]
      let range = try #require(tensor.range)
      #expect(range.lowerBound > start && range.upperBound < start + inner.count)
      #expect(try file.bytes(in: range) == TorchBuilder.exampleData)
    }
    #expect(throws: Failure.self) { _ = try FileSlice(file, offset: 3, length: 2 * inner.count + 1) }
    #expect(throws: Failure.self) { _ = try PyTorchArchive(file) }
  }

  @Test func checksums() throws {
    #expect(ZipBuilder.crc(Array("123456789".utf8)) == 0xCBF4_3926)
    func archive(_ edit: (inout ZipBuilder) -> Void) throws -> ZipArchive {
      let bytes = TorchBuilder.zip(TorchBuilder.example, [("0", TorchBuilder.exampleData)], edit: edit)
      try directory.write("m.bin", bytes)
      return try ZipArchive(FileSlice(InputFile(path: directory.path("m.bin"), name: "m.bin")))
    }
    let sound = try archive { $0["data/0"].data = (0..<1000).map { UInt8(truncatingIfNeeded: $0 * $0) } }
    for entry in sound.entries { try sound.checkCRC(entry) }
    let damaged = try archive { $0["data/0"].crc = 77 }
    let entry = try #require(damaged.entry("m/data/0"))
    let failure = try #require(throws: Failure.self) { try damaged.checkCRC(entry) }
    #expect(failure.message.hasPrefix("the entry 'm/data/0' is damaged: its checksum is "))
    #expect(failure.code == .malformed && failure.offset == entry.range.lowerBound)
    // None was computed.
    let without = try archive { zip in for index in zip.entries.indices { zip.entries[index].crc = 0 } }
    let unchecked = try #require(without.entry("m/data/0"))
    #expect(unchecked.crc == nil)
    try without.checkCRC(unchecked)
  }

  /// More than 4 GiB, nearly all of it a hole: sizes and places of 64 bits.
  @Test func beyondFourGigabytes() throws {
    let count = 2_200_000_000
    let pickle = Pickle.whole(
      Pickle.dictionary([
        ("big", Pickle.tensor(Pickle.storage(count, "HalfStorage"), [count / 1000, 1000])),
        ("last", Pickle.tensor(Pickle.storage(6, key: "1"), [6])),
      ]))
    var zip = ZipBuilder([.init("m/data.pkl", pickle), .init("m/version", [0x33]), .init("m/data/0", [])])
    zip["data/0"].flags = 0x0808
    // What precedes the data of the storage is what precedes its descriptor when it is empty.
    let whole = zip.bytes
    let beginning = Array(whole[..<(try #require(firstDirectory(in: whole)) - 16)])
    let end = beginning.count + 2 * count
    let tail = ZipBuilder([.init("m/data/1", TorchBuilder.six[0].data)])
    let tailBytes = tail.bytes
    let last = Array(tailBytes[..<(try #require(firstDirectory(in: tailBytes)))])
    try directory.writeSparse("m.bin", beginning, size: end)
    try directory.overwrite("m.bin", at: end, with: last)
    var directoryBytes: [UInt8] = []
    var list = ZipBuilder(zip.entries + tail.entries)
    list["data/0"].size = .max
    list["data/0"].extra =
      Pickle.little(1, 2) + Pickle.little(16, 2) + Pickle.little(2 * count, 8) + Pickle.little(2 * count, 8)
    list["data/0"].crc = 0
    list["data/1"].offset = .max
    list["data/1"].extra = Pickle.little(1, 2) + Pickle.little(8, 2) + Pickle.little(end, 8)
    let listed = list.bytes
    directoryBytes = Array(listed[try #require(firstDirectory(in: listed))...].dropLast(98))
    let start = end + last.count
    try directory.overwrite("m.bin", at: start, with: directoryBytes + list.end(at: start, size: directoryBytes.count))
    let file = try PyTorchFile(InputFile(path: directory.path("m.bin")))
    #expect(file.tensors.map(\.name) == ["big", "last"] && file.tensors[0].byteCount == 4_400_000_000)
    #expect(try floats(file.bytes(1)) == [0, 1, 2, 3, 4, 5])
    #expect(try file.bytes(0, 4_399_999_990..<4_400_000_000) == [UInt8](repeating: 0, count: 10))
    #expect(try #require(file.place(of: 1)) > 1 << 32)
  }

  private func firstDirectory(in bytes: [UInt8]) -> Int? {
    bytes.indices.first { bytes[$0...].starts(with: [0x50, 0x4B, 0x01, 0x02]) }
  }
}
