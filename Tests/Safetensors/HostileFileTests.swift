import Bytes
import Safetensors
import Tensors
import TestSupport
import Testing

/// Every bad file is rejected with its message, and its nearest valid neighbour is not.
@Suite struct HostileFileTests {
  @Test(arguments: HostileFile.safetensors + [.gguf, .zip])
  func isRejected(_ file: HostileFile) throws {
    let bytes = file.bytes()
    let inMemory = try #require(throws: Failure.self) { _ = try SafetensorsHeader(ofFile: bytes) }
    #expect(inMemory.code.rawValue == file.exitCode)
    #expect(inMemory.description.contains(file.message), "\(inMemory)")
    if let tensor = file.tensor { #expect(inMemory.tensor == tensor) }
    #expect(inMemory.description.utf8.count <= 4096)
    #expect(!inMemory.description.utf8.contains { $0 < 0x20 || $0 == 0x7F })

    let directory = try TemporaryDirectory()
    let path = try directory.write("model.safetensors", bytes)
    // What is no checkpoint at all is called as it was named.
    let named = inMemory.message.hasPrefix("not a checkpoint: ") ? path : "model.safetensors"
    for (place, name) in [(path, named), (directory.path, "model.safetensors")] {
      let onDisk = try #require(throws: Failure.self) { _ = try SafetensorsCheckpoint(path: place) }
      #expect(onDisk == inMemory.located(file: name))
    }
  }

  @Test(arguments: HostileFile.safetensors)
  func twinIsAccepted(_ file: HostileFile) throws {
    let header = try SafetensorsHeader(ofFile: file.twin())
    #expect(header.warnings.isEmpty)
  }

  @Test(arguments: OddFile.safetensors)
  func oddFileIsAccepted(_ file: OddFile) throws {
    let directory = try TemporaryDirectory()
    let path = try directory.write("model.safetensors", file.bytes())
    let checkpoint = try SafetensorsCheckpoint(path: path)
    #expect(checkpoint.tensors.map(\.name) == file.tensors.map { TensorName($0) })
    if let warning = file.warning {
      #expect(checkpoint.warnings.count == 1 && checkpoint.warnings[0].contains(warning), "\(checkpoint.warnings)")
    } else {
      #expect(checkpoint.warnings.isEmpty)
    }
    for name in file.tensors { #expect(checkpoint.index(of: TensorName(name)) != nil) }
  }

  @Test func lengthAtTheLimitIsAccepted() throws {
    let directory = try TemporaryDirectory()
    let header = Array("{}".utf8) + [UInt8](repeating: 0x20, count: SafetensorsHeader.lengthLimit - 2)
    let path = try directory.write("model.safetensors", SafetensorsBuilder.file(header))
    #expect(try SafetensorsCheckpoint(path: path).tensors.isEmpty)
    let longer = try directory.write("longer.safetensors", SafetensorsBuilder.file(header + [0x20]))
    let failure = try #require(throws: Failure.self) { _ = try SafetensorsCheckpoint(path: longer) }
    #expect(failure.message == "header length is 100000001 bytes, allowed are 100000000")
  }

  @Test(
    .enabled(if: Build.isOptimized, "a million tensors need an optimized build"), arguments: [1_000_000, 1_000_001])
  func tensorLimit(_ count: Int) throws {
    var bytes = Array("{".utf8)
    for index in 0..<count {
      bytes += "\(index == 0 ? "" : ",")\"\(index)\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}".utf8
    }
    bytes += "}".utf8
    let file = SafetensorsBuilder.file(bytes)
    if count <= SafetensorsHeader.tensorLimit {
      #expect(try SafetensorsHeader(ofFile: file).tensors.count == count)
    } else {
      let failure = try #require(throws: Failure.self) { _ = try SafetensorsHeader(ofFile: file) }
      #expect(failure.message == "more than the 1000000 tensors allowed")
    }
  }
}
