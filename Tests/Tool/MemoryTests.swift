import Foundation
import TestSupport
import Testing

/// 256 MiB are enough for any model with a header up to 16 MB, and for any tensor.
@Suite(.enabled(if: Machine.hasProc, "\(Machine.needsProc)"), .serialized)
struct MemoryTests {
  let directory: TemporaryDirectory
  static let limit = 256 << 20
  /// What `make test` names.
  static let isRelease = ProcessInfo.processInfo.environment["NIBBLE"] != nil

  init() throws { directory = try TemporaryDirectory() }

  private func expectSmall(
    _ arguments: String..., status: Int32 = 0, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let run = try Tool.run(arguments, limit: 300, sourceLocation: sourceLocation)
    #expect(run.status == status, "\(run.error)", sourceLocation: sourceLocation)
    #expect(run.residentBytes > 1 << 20, "not measured", sourceLocation: sourceLocation)
    #expect(
      run.residentBytes <= Self.limit, "\(arguments.prefix(2)): \(run.residentBytes >> 20) MiB",
      sourceLocation: sourceLocation)
    print("memory: \(arguments[0]) \(run.residentBytes >> 20) MiB in \((run.seconds * 100).rounded() / 100) s")
  }

  /// 1.3 GB in one BF16 weight, of zeros that take no room on the disk.
  @Test func largeTensor() throws {
    try InterruptedRunTests.writeZeros(directory, "model/model.safetensors", rows: 25_600, columns: 26_000)
    let model = directory.path("model")
    let out = directory.path("out")
    try expectSmall("quantize", model, "-o", out, "--quiet")
    try expectSmall("verify", out, "--quiet", "--against", model)
    if Self.isRelease { try expectSmall("inspect", out, "--quiet", "--stats", "--against", model) }
    try expectSmall("diff", model, model, "--quiet")
    if Self.isRelease { try expectSmall("diff", model, out, "--quiet", status: 1) }
    try FileManager.default.removeItem(atPath: out)
    try expectSmall("quantize", model, "-o", out, "--quiet", "--no-double-quant", "--block-size", "32")
  }

  /// A header of 16 MB: 130 000 tensors, every second one a weight to quantize.
  @Test(.enabled(if: isRelease, "takes minutes in a debug build"))
  func largeHeader() throws {
    let count = 130_000
    var header = "{"
    header.reserveCapacity(17_000_000)
    var end = 0
    for index in 0..<count {
      let isLinear = index % 2 == 0
      let size = isLinear ? 128 : 64
      let name = "model.layers.\(index / 16).block_\(index).\(isLinear ? "up_proj" : "norm").weight"
      if index > 0 { header += "," }
      header += SafetensorsBuilder.member(name, "BF16", isLinear ? "[1,64]" : "[32]", "[\(end),\(end + size)]")
      end += size
    }
    header += "}"
    while header.utf8.count < 16_000_000 { header += "    " }
    #expect(header.utf8.count < 16_001_000)
    let bytes = SafetensorsBuilder.file(header)
    try directory.write("model/model.safetensors", making: [])
    try directory.writeSparse("model/model.safetensors", bytes, size: bytes.count + end)
    let model = directory.path("model")
    let out = directory.path("out")
    try expectSmall("quantize", model, "-o", out, "--quiet")
    try expectSmall("inspect", model, "--quiet", "--json")
    try expectSmall("inspect", model, "--quiet", "--stats")
    try expectSmall("verify", model, "--quiet", "--against", model)
    let copy = directory.path("copy")
    try expectSmall("convert", model, "-o", copy, "--quiet", "--dtype", "float32")
    try expectSmall("verify", copy, "--quiet")
    try expectSmall("diff", model, model, "--quiet")
    try expectSmall("diff", model, copy, "--quiet", status: 1)
  }
}
