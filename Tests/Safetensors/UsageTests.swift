// The README's example, from here …
import Safetensors
import Tensors
import TestSupport
import Testing

/// Copies one tensor of a checkpoint, without loading the rest, into a file of its own.
func copyTensor(_ name: TensorName, from source: String, to path: String) throws {
  let file = try SafetensorsFile(path: source)  // reads and validates the header, no data
  guard let index = file.header.index(of: name) else { return }
  let tensor = file.tensors[index]
  print(tensor.name, tensor.type.name, tensor.shape, tensor.byteCount)
  var writer = try SafetensorsFileWriter(path: path, tensors: [tensor])
  try writer.write(0, file.bytes(of: name))
  try writer.commit()  // durable and visible now; without this line no file is left
}
// … to here.

@Suite struct UsageTests {
  @Test func theExampleWorks() throws {
    let temporary = try TemporaryDirectory()
    let source = try temporary.write("m.safetensors", SafetensorsBuilder.small.bytes)
    try copyTensor("b.weight", from: source, to: temporary.path("b.safetensors"))
    let copy = try SafetensorsFile(path: temporary.path("b.safetensors"))
    #expect(copy.tensors.map(\.name) == ["b.weight"])
    #expect(try copy.bytes(of: "b.weight") == [0, 1, 2, 3, 4, 5])
  }
}
