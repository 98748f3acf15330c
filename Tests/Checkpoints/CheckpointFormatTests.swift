import Bytes
import Foundation
import TestSupport
import Testing

@testable import Checkpoints

/// A path is known by what it holds, not by its name.
@Suite struct CheckpointFormatTests {
  private let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func format(_ name: String) throws -> CheckpointFormat { try .detect(directory.path(name)) }

  @Test func files() throws {
    try directory.write("weights.bin", GGUFBuilder.small.bytes)
    try directory.write("weights.gguf", SafetensorsBuilder([]).bytes)
    try directory.write("model.safetensors", Array(" \n{\"model_type\": \"llama\"}".utf8))
    try directory.write("empty", [])
    #expect(try format("weights.bin") == .ggufFile)
    #expect(try format("weights.gguf") == .safetensorsFile)
    #expect(try format("model.safetensors") == .configurationFile)
    #expect(try format("empty") == .safetensorsFile)
    let failure = try #require(throws: Failure.self) { _ = try format("missing") }
    #expect(failure.code == .missing)
  }

  @Test func directories() throws {
    #expect(try CheckpointFormat.detect(directory.path) == .safetensorsDirectory)
    try directory.write("config.json", [])
    #expect(try CheckpointFormat.detect(directory.path) == .configurationDirectory)
    try directory.write("a.gguf", [])
    #expect(try CheckpointFormat.detect(directory.path) == .ggufDirectory)
    try directory.write(".hidden.safetensors", [])
    #expect(try CheckpointFormat.detect(directory.path) == .ggufDirectory)
    try directory.write("adapter_model.safetensors", [])
    #expect(try CheckpointFormat.detect(directory.path) == .safetensorsDirectory)
    try directory.write("adapter_config.json", [])
    #expect(try CheckpointFormat.detect(directory.path) == .adapterDirectory)
    try directory.write("model.safetensors", [])
    #expect(try CheckpointFormat.detect(directory.path) == .safetensorsDirectory)
  }

  /// Of several forms of a model in a directory that of transformers counts.
  @Test func formsOfOthers() throws {
    try directory.write("consolidated.00.pth", [])
    #expect(try CheckpointFormat.detect(directory.path) == .consolidatedDirectory)
    try directory.write("params.json", [])
    #expect(try CheckpointFormat.detect(directory.path) == .consolidatedDirectory)
    try directory.write("pytorch_model.bin", [])
    #expect(try CheckpointFormat.detect(directory.path) == .pytorchDirectory)
    try directory.write("consolidated.safetensors", [])
    #expect(try CheckpointFormat.detect(directory.path) == .pytorchDirectory)
    try directory.write("model.safetensors", [])
    #expect(try CheckpointFormat.detect(directory.path) == .safetensorsDirectory)
  }

  @Test func formsOfMistral() throws {
    try directory.write("consolidated.safetensors", [])
    try directory.write("params.json", [])
    #expect(try CheckpointFormat.detect(directory.path) == .consolidatedDirectory)
    try directory.write("model-00001-of-00002.safetensors", [])
    #expect(try CheckpointFormat.detect(directory.path) == .safetensorsDirectory)
  }

  /// Without `params.json` nothing says that a file of that name is of Mistral.
  @Test func consolidatedByNameOnly() throws {
    try directory.write("consolidated.safetensors", [])
    #expect(try CheckpointFormat.detect(directory.path) == .safetensorsDirectory)
  }

  @Test func adaptersOfOthers() throws {
    try directory.write("adapters.safetensors", [])
    #expect(try CheckpointFormat.detect(directory.path) == .safetensorsDirectory)
    try directory.write("adapter_config.json", [])
    #expect(try CheckpointFormat.detect(directory.path) == .mlxAdapterDirectory)
    try directory.write("adapter_model.safetensors", [])
    #expect(try CheckpointFormat.detect(directory.path) == .safetensorsDirectory)
  }

  @Test func whatIsOpened() throws {
    try directory.write("m.gguf", GGUFBuilder.small.bytes)
    let files = try CheckpointFiles(path: directory.path("m.gguf"))
    #expect(files.gguf != nil && files.safetensors == nil && files.checkpoint.container == "gguf")
    #expect(files.checkpoint.files.gguf != nil)
  }
}
