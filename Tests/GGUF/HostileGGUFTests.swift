import Bytes
import GGUF
import Tensors
import TestSupport
import Testing

/// Every bad file is rejected with its message, and its nearest valid neighbour is not.
@Suite struct HostileGGUFTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func refused(_ path: String) throws -> Failure {
    try #require(throws: Failure.self) { _ = try GGUFHeader(of: InputFile(path: path, name: "model.gguf")) }
  }

  @Test(arguments: HostileGGUF.files + HostileGGUF.strangers + [HostileGGUF.zip])
  func isRejected(_ file: HostileFile) throws {
    let path = try directory.write("model.gguf", file.bytes())
    let failure = try refused(path)
    #expect(failure.code.rawValue == file.exitCode, "\(failure)")
    #expect(failure.description.contains(file.message), "\(failure)")
    if let tensor = file.tensor { #expect(failure.tensor == tensor) }
    #expect(failure.file == "model.gguf")
    #expect(failure.description.utf8.count <= 4096)
    #expect(!failure.description.utf8.contains { $0 < 0x20 || $0 == 0x7F })
    for path in [path, directory.path] {
      let whole = try #require(throws: Failure.self) { _ = try GGUFCheckpoint(path: path) }
      #expect(whole == failure)
    }
  }

  @Test(arguments: HostileGGUF.files + HostileGGUF.strangers + [HostileGGUF.zip])
  func twinIsAccepted(_ file: HostileFile) throws {
    let path = try directory.write("model.gguf", file.twin())
    #expect(try GGUFCheckpoint(path: path).warnings.isEmpty)
  }

  @Test func everyCutIsRejected() throws {
    for cut in HostileGGUF.cuts {
      let failure = try refused(directory.write("model.gguf", cut.bytes()))
      #expect(failure.code == .malformed, "\(cut): \(failure)")
      #expect(
        failure.message.contains("ends inside") || failure.message.contains("cut short")
          || failure.message.contains("remain") || failure.message.contains("fit")
          || failure.message.contains("room"), "\(cut): \(failure)")
    }
    let whole = try directory.write("model.gguf", HostileGGUF.cuts[0].twin())
    #expect(try GGUFCheckpoint(path: whole).tensors.count == 3)
  }

  @Test(arguments: OddFile.gguf)
  func oddFileIsAccepted(_ file: OddFile) throws {
    let path = try directory.write("model.gguf", file.bytes())
    let checkpoint = try GGUFCheckpoint(path: path)
    #expect(checkpoint.tensors.map(\.name) == file.tensors.map { TensorName($0) })
    #expect(checkpoint.warnings == (file.warning.map { ["model.gguf: \($0)"] } ?? []))
    for (position, name) in file.tensors.enumerated() {
      #expect(checkpoint.index(of: TensorName(name)) == position)
    }
    #expect(checkpoint.index(of: "no such tensor") == nil)
  }

  // MARK: - Limits, with files that take no room

  private func sparse(_ builder: GGUFBuilder, size: Int) throws -> String {
    try directory.writeSparse("model.gguf", builder.header, size: size)
  }

  @Test func countLimits() throws {
    var builder = GGUFBuilder()
    builder.tensorCount = UInt64(GGUFHeader.tensorLimit) + 1
    var failure = try refused(sparse(builder, size: 1 << 30))
    #expect(failure.message == "declares 1000001 tensors, the file has room for 1000000 at most")
    builder.tensorCount = 0
    builder.pairCount = UInt64(GGUFHeader.metadataLimit) + 1
    failure = try refused(sparse(builder, size: 1 << 30))
    #expect(failure.message == "declares 1000001 metadata pairs, the file has room for 1000000 at most")
    // Within the limit, the zeros are read: keys of no bytes.
    builder.pairCount = UInt64(GGUFHeader.metadataLimit)
    failure = try refused(sparse(builder, size: 1 << 30))
    #expect(failure.message == "a key of 0 bytes, allowed are 1 to 65535")
  }

  @Test func stringLimit() throws {
    let limit = GGUFHeader.stringLimit
    for isInArray in [false, true] {
      for length in [limit, limit + 1] {
        let text = GGUFBuilder.Value.string([], length: UInt64(length))
        var builder = GGUFBuilder([.init("v", isInArray ? .array([text]) : text)])
        let size = builder.header.count + length
        builder.isPadded = false
        let path = try sparse(builder, size: size)
        if length == limit {
          let value = try GGUFHeader(of: InputFile(path: path)).metadata["v"]
          #expect(value?.array?.byteCount ?? value?.type.name.count == (isInArray ? limit + 8 : 6))
        } else {
          #expect(try refused(path).message.contains("a string has 67108865 bytes, allowed are 67108864"))
        }
      }
    }
  }

  @Test func arrayLimit() throws {
    let limit = GGUFHeader.arrayLimit
    for count in [limit / 4, limit / 4 + 1] {
      let builder = GGUFBuilder([.init("v", .array(of: 6, count: UInt64(count), []))])
      let path = try sparse(builder, size: builder.header.count + 4 * count)
      if 4 * count == limit {
        #expect(try GGUFHeader(of: InputFile(path: path)).metadata["v"]?.array?.count == count)
      } else {
        #expect(try refused(path).message.contains("an array has \(limit + 4) bytes, allowed are \(limit)"))
      }
    }
  }

  /// Offsets and sizes beyond 32 bits: the values on both sides of the edge are where they should be.
  @Test func moreThanFourGigabytes() throws {
    let builder = GGUFBuilder(
      [],
      [
        .init("large", 1, [65_536, 40_000], []), .init("after", 1, [4], [], offset: 65_536 * 40_000 * 2),
      ])
    let start = builder.dataStart
    let size = 65_536 * 40_000 * 2
    let path = try directory.writeSparse("model.gguf", builder.header, size: start + size + 8)
    let marks = [0, 1 << 32 - 2, 1 << 32, size - 2, size]
    for (number, offset) in marks.enumerated() {
      try directory.overwrite("model.gguf", at: start + offset, with: [UInt8(number + 1), 0x3C])
    }
    let checkpoint = try GGUFCheckpoint(path: path)
    #expect(checkpoint.tensors.map(\.byteCount) == [size, 8])
    #expect(checkpoint.location(of: 1).offset == start + size)
    for (number, offset) in marks.enumerated() {
      var bytes: [UInt8] = [0, 0]
      let (tensor, position) = offset < size ? (0, offset) : (1, 0)
      try checkpoint.read(tensor, at: position, into: &bytes)
      #expect(bytes == [UInt8(number + 1), 0x3C])
    }
    let short = try directory.writeSparse("short.gguf", builder.header, size: start + size + 7)
    #expect(try refused(short).tensor == "after")
  }

  // MARK: - Time

  /// Keys and names with a long prefix in common are compared by sorting; each with each takes minutes.
  @Test(.timeLimit(.minutes(1))) func manyNames() throws {
    let count = Build.isOptimized ? 300_000 : 20_000
    var builder = GGUFBuilder()
    let prefix = String(repeating: "p", count: 40)
    builder.pairs = (0..<count).map { .init("\(prefix)\($0)", .uint8(1)) }
    builder.tensors = (0..<count).map { .init("\(prefix)\($0)", 0, [0], []) }
    let path = try directory.write("model.gguf", builder.bytes)
    let checkpoint = try GGUFCheckpoint(path: path)
    #expect(checkpoint.tensors.count == count && checkpoint.metadata.pairs.count == count)
    builder.tensors[count - 1].name = builder.tensors[0].name
    #expect(try refused(directory.write("model.gguf", builder.bytes)).tensor == prefix + "0")
  }
}
