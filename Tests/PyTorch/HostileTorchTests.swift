import Bytes
import PyTorch
import TestSupport
import Testing

/// Every bad file is refused with its message, and its nearest valid neighbour is not.
@Suite struct HostileTorchTests {
  static let rows =
    HostileTorch.archives + HostileTorch.strangers + HostileTorch.tensors + HostileTorch.roots + HostileTorch.legacies

  @Test(arguments: rows) func isRefused(_ row: HostileFile) throws {
    let directory = try TemporaryDirectory()
    let failure = try #require(throws: Failure.self) { _ = try opened(row.bytes(), in: directory) }
    #expect(failure.code.rawValue == row.exitCode, "\(failure)")
    #expect(failure.description.contains(row.message), "\(failure)")
    #expect(failure.file == "m.bin")
    if let tensor = row.tensor { #expect(failure.tensor == tensor, "\(failure)") }
    #expect(!failure.description.utf8.contains { $0 < 0x20 || $0 == 0x7F } && failure.description.utf8.count <= 4096)
  }

  @Test(arguments: rows) func twinIsAccepted(_ row: HostileFile) throws {
    let directory = try TemporaryDirectory()
    #expect(try !opened(row.twin(), in: directory).tensors.isEmpty)
  }

  @Test func everyCutIsRefused() throws {
    let directory = try TemporaryDirectory()
    let zip = TorchBuilder.zip(TorchBuilder.example, [("0", TorchBuilder.exampleData)])
    let legacy = TorchBuilder.mixedLegacy
    #expect(try opened(legacy, in: directory).tensors.count == 5)
    for whole in [zip, legacy] {
      for cut in 0..<whole.count where cut % 3 == 0 || whole.count - cut < 150 {
        let failure = try #require(throws: Failure.self) { _ = try opened(Array(whole[..<cut]), in: directory) }
        #expect([.malformed, .unsupported].contains(failure.code), "\(cut): \(failure)")
      }
    }
  }

  /// Names that scanners of pickles look for: here none of them means anything.
  @Test(arguments: [
    ("posix", "system"), ("builtins", "eval"), ("pkgutil", "resolve_name"), ("torch.storage", "_load_from_bytes"),
    ("torch._utils", "builtins.eval"), ("runpy", "run_path"),
  ]) func aCallBesideTensorsIsNotMade(_ module: String, _ name: String) throws {
    let directory = try TemporaryDirectory()
    let file = try opened(
      TorchBuilder.zip(
        Pickle.whole(
          Pickle.dictionary([
            ("w", Pickle.tensor(Pickle.storage(6), [6])), ("x", Pickle.call(module, name, [Pickle.text("touch here")])),
          ])), TorchBuilder.six), in: directory)
    #expect(file.contents.ignored == ["x"] && file.tensors.map(\.name) == ["w"])
  }
}
