import Bytes
import GGUF
import Tensors
import TestSupport
import Testing

/// Models in several files, and directories that hold models.
@Suite struct SplitTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  /// File `number`, from 0, with one tensor.
  private func part(_ number: Int, of count: Int, tensors: Int? = nil, name: String? = nil) -> GGUFBuilder {
    GGUFBuilder(
      (number == 0 ? [.init("general.architecture", .string("test"))] : []) + [
        .init("split.no", .uint16(UInt16(number))), .init("split.count", .uint16(UInt16(count))),
        .init("split.tensors.count", .int32(Int32(tensors ?? count))),
      ], [.init(name ?? "t\(number)", 24, [4], [UInt8](repeating: UInt8(number), count: 4))])
  }

  private func fileName(_ number: Int, of count: Int) -> String {
    GGUFFileName(stem: "m", number: number + 1, total: count).text
  }

  /// - Parameter change: is given the number of each file, from 0.
  private func write(_ count: Int, _ change: (Int, inout GGUFBuilder) -> Void = { _, _ in }) throws {
    for number in 0..<count {
      var builder = part(number, of: count)
      change(number, &builder)
      try directory.write(fileName(number, of: count), builder.bytes)
    }
  }

  private func refused(_ name: String? = nil) throws -> Failure {
    let path = name.map(directory.path) ?? directory.path
    return try #require(throws: Failure.self) { _ = try GGUFCheckpoint(path: path) }
  }

  @Test func threeFiles() throws {
    try write(3)
    for path in (0..<3).map({ directory.path(fileName($0, of: 3)) }) + [directory.path, directory.path + "/"] {
      let checkpoint = try GGUFCheckpoint(path: path)
      #expect(checkpoint.tensors.map(\.name) == ["t0", "t1", "t2"])
      #expect(checkpoint.files.map(\.name) == (0..<3).map { fileName($0, of: 3) })
      #expect((0..<3).map(checkpoint.fileIndex) == [0, 1, 2])
      #expect(checkpoint.location(of: 2).file == fileName(2, of: 3))
      #expect(try checkpoint.metadata.text("general.architecture") == "test")
      #expect(checkpoint.directory != nil && checkpoint.identities.count == 3)
      for index in 0..<3 {
        var bytes: [UInt8] = [9, 9]
        try checkpoint.read(index, at: 2, into: &bytes)
        #expect(bytes == [UInt8(index), UInt8(index)])
      }
      try checkpoint.checkUnchanged()
    }
  }

  @Test func missingFile() throws {
    for absent in 0..<3 {
      try write(3)
      try directory.remove(fileName(absent, of: 3))
      let failure = try refused(fileName((absent + 1) % 3, of: 3))
      #expect(failure.code == .missing && failure.file == fileName(absent, of: 3))
    }
  }

  typealias Change = @Sendable (Int, inout GGUFBuilder) -> Void

  static let disagreements: [(String, Change)] = [
    ("is number 1 of 2 by its name, 0 of 2 by its metadata", { if $0 == 1 { $1.set("split.no", .uint16(0)) } }),
    ("is number 1 of 2 by its name, nothing of 2 by its metadata", { if $0 == 1 { $1.set("split.no", nil) } }),
    ("is number 1 of 2 by its name, 1 of 1 by its metadata", { if $0 == 1 { $1.set("split.count", nil) } }),
    ("is number 1 of 2 by its name, 1 of 3 by its metadata", { if $0 == 1 { $1.set("split.count", .uint16(3)) } }),
    ("split.tensors.count is 3, the files hold 2 tensors", { if $0 == 0 { $1.set("split.tensors.count", .int32(3)) } }),
    ("split.tensors.count is -1, the files hold", { if $0 == 0 { $1.set("split.tensors.count", .int32(-1)) } }),
    ("metadata 'split.no': found string", { if $0 == 1 { $1.set("split.no", .string("1")) } }),
    ("the tensor is in more than one file of the split", { $1.tensors[0].name = [0x74] }),
    ("is GGUF version 1", { if $0 == 1 { $1.version = 1 } }),
    ("data is cut short", { if $0 == 1 { $1.tensors[0].dimensions = [400] } }),
    ("begins with 67 67 75 66", { if $0 == 1 { $1.magic = Array("gguf".utf8) } }),
  ]

  @Test(arguments: disagreements.indices) func disagreement(_ row: Int) throws {
    let (message, change) = Self.disagreements[row]
    try write(2, change)
    let failure = try refused()
    #expect(failure.description.contains(message), "\(failure)")
    #expect(failure.code == (message.contains("version") ? .unsupported : .malformed))
  }

  /// `split.count` of a file that was opened by its name, against that name.
  @Test(arguments: [
    ("m.gguf", UInt16(2), "is one of 2 files, but its name does not end in -NNNNN-of-00002.gguf"),
    ("m-00001-of-00003.gguf", 2, "is one of 2 files, but its name does not end in"),
    ("m-00001-of-00002.gguf", 65_535, "is one of 65535 files, but its name does not end in -NNNNN-of-65535.gguf"),
  ])
  func nameAndCount(name: String, count: UInt16, message: String) throws {
    var builder = part(0, of: 2)
    builder.set("split.count", .uint16(count))
    try directory.write(name, builder.bytes)
    let failure = try refused(name)
    #expect(failure.code == .malformed && failure.file == name && failure.message.contains(message), "\(failure)")
  }

  /// Numbers that no split has, before anything is made of them.
  @Test(arguments: [GGUFBuilder.Value.uint64(65_536), .int64(.max), .uint64(.max), .string("2"), .array([.uint16(2)])])
  func absurdCount(_ value: GGUFBuilder.Value) throws {
    var builder = part(0, of: 2)
    builder.set("split.count", value)
    try directory.write("m-00001-of-00002.gguf", builder.bytes)
    for name in ["m-00001-of-00002.gguf", nil] {
      #expect(try refused(name).code == (name == nil ? .missing : .malformed))
    }
  }

  /// A count that is there in the metadata, none in the name: one file is one file.
  @Test(arguments: [Int64(0), 1, -5]) func oneOfOne(_ count: Int64) throws {
    var builder = part(0, of: 1, tensors: 1)
    builder.set("split.count", .int64(count))
    try directory.write("m.gguf", builder.bytes)
    #expect(try GGUFCheckpoint(path: directory.path("m.gguf")).tensors.count == 1)
    #expect(try GGUFCheckpoint(path: directory.path).tensors.count == 1)
  }

  @Test func choices() throws {
    #expect(try refused().code == .missing)
    try directory.write("a.gguf", GGUFBuilder.small.bytes)
    try directory.write(".hidden.gguf", [])
    try directory.write("notes.txt", [])
    #expect(try GGUFCheckpoint(path: directory.path).tensors.count == 3)
    try directory.write("b.gguf", GGUFBuilder.small.bytes)
    let failure = try refused()
    #expect(
      failure.code == .malformed && failure.message == "holds 2 GGUF models ('a.gguf', 'b.gguf'): name the one meant")
    try directory.write("model.safetensors", [])
  }

  /// A part that follows the first does not stand for the model, but is enough to say what is missing.
  @Test func laterPartAlone() throws {
    try directory.write(fileName(1, of: 2), part(1, of: 2).bytes)
    let failure = try refused()
    #expect(failure.code == .missing && failure.file == fileName(0, of: 2))
  }

  /// A symbolic link out of the directory is not followed for the other files of a split.
  @Test func linkedPart() throws {
    try write(2)
    let outside = try directory.makeDirectory("outside")
    try directory.remove(fileName(1, of: 2))
    try directory.write("outside/part", part(1, of: 2).bytes)
    try directory.link(fileName(1, of: 2), to: outside + "/part")
    let failure = try refused(fileName(0, of: 2))
    #expect(failure.code == .malformed && failure.message.contains("is a symbolic link"), "\(failure)")
  }

  // MARK: - Names

  @Test(arguments: [
    ("m-00001-of-00003.gguf", "m", 1, 3), ("a-b-00002-of-00002.gguf", "a-b", 2, 2), ("-00001-of-00001.gguf", "", 1, 1),
    ("m-of-00001-of-00002.gguf", "m-of", 1, 2), ("x y/-65535-of-65535.gguf", "x y/", 65_535, 65_535),
  ])
  func splitName(text: String, stem: String, number: Int, total: Int) throws {
    let name = try #require(GGUFFileName(text))
    #expect(name == GGUFFileName(stem: stem, number: number, total: total))
    if total > 1 { #expect(name.text == text) } else { #expect(name.text == "\(stem).gguf") }
  }

  @Test(arguments: [
    "m.gguf", "m-00001-of-00003", "m-00001-of-00003.GGUF", "m-1-of-3.gguf", "m-00000-of-00003.gguf",
    "m-00004-of-00003.gguf", "m-00001-of-00000.gguf", "m-000001-of-000003.gguf", "m-00001-OF-00003.gguf",
    "m-0000a-of-00003.gguf", "m-+0001-of-00003.gguf", "m-00001-of-+0003.gguf", "m00001-of-00003.gguf", ".gguf", "",
    "m-\u{661}0001-of-00003.gguf", "m--0001-of-00003.gguf",
  ])
  func otherName(_ text: String) { #expect(GGUFFileName(text) == nil) }

  @Test func numbersBeyondFiveDigits() {
    #expect(GGUFFileName(stem: "m", number: 7, total: 123_456).text == "m-00007-of-123456.gguf")
  }
}
