import Bytes
import Safetensors
import Tensors
import TestSupport
import Testing

@Suite struct MappedFileTests {
  @Test(arguments: 0..<8) func spansAreTheTensorsBytes(_ remainder: Int) throws {
    let temporary = try TemporaryDirectory()
    var builder = SafetensorsBuilder.small
    builder.lengthModulo8 = remainder
    let file = try SafetensorsFile(path: try temporary.write("m.safetensors", builder.bytes))
    let mapped = try file.map()
    for (index, tensor) in builder.tensors.enumerated() {
      let span = try mapped.bytes(of: TensorName(tensor.name))
      #expect(span.byteOffsets.map { span.unsafeLoad(fromByteOffset: $0, as: UInt8.self) } == tensor.data)
      #expect(mapped.bytes(of: index).byteCount == tensor.data.count)
      #expect(try file.bytes(of: TensorName(tensor.name)) == tensor.data)
    }
    let first = mapped.bytes(of: 0)
    // At any alignment, as stored.
    #expect(first.unsafeLoadUnaligned(fromByteOffset: 0, as: UInt32.self) == 0x0302_0100)
  }

  @Test func unknownNamesAreRefused() throws {
    let temporary = try TemporaryDirectory()
    let file = try SafetensorsFile(path: try temporary.write("m.safetensors", SafetensorsBuilder.small.bytes))
    let mapped = try file.map()
    let failure = try #require(throws: Failure.self) { _ = try mapped.bytes(of: "c").byteCount }
    #expect(failure.code == .missing && failure.tensor == "c")
    #expect(throws: Failure.self) { _ = try file.bytes(of: "c") }
  }
}
