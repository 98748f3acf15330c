import Bytes
import Foundation
import PyTorch
import Tensors
import TestSupport
import Testing

@Suite struct TorchCheckpointTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func shard(_ names: String...) -> [UInt8] {
    TorchBuilder.zip(
      Pickle.whole(Pickle.dictionary(names.map { ($0, Pickle.tensor(Pickle.storage(6), [6])) })), TorchBuilder.six)
  }

  /// `NAME FILE` in each line.
  private func open(_ path: String? = nil) throws -> PyTorchCheckpoint {
    try PyTorchCheckpoint(path: path ?? directory.path) { (file) throws(Failure) in
      let text = String(decoding: try file.contents(limit: 1 << 20), as: UTF8.self)
      return text.split(separator: "\n").map { line in
        let parts = line.split(separator: " ")
        return (String(parts[0]), String(parts[1]))
      }
    }
  }

  private func refused(_ code: Failure.Code, _ message: String, tensor: String? = nil) throws {
    let failure = try #require(throws: Failure.self) { _ = try open() }
    #expect(failure.code == code && failure.description.contains(message), "\(failure)")
    #expect(failure.tensor == tensor && failure.file != nil)
  }

  private let index = "pytorch_model.bin.index.json"
  private let first = "pytorch_model-00001-of-00002.bin"
  private let second = "pytorch_model-00002-of-00002.bin"

  private func writeShards(index text: String) throws {
    try directory.write(first, shard("a", "b"))
    try directory.write(second, shard("c"))
    try directory.write(index, Array(text.utf8))
  }

  private func check(_ checkpoint: PyTorchCheckpoint) throws {
    #expect(checkpoint.files.map(\.name) == [first, second])
    #expect(checkpoint.tensors.map(\.name) == ["a", "b", "c"] && checkpoint.tied == [[0, 1]])
    for (position, name) in ["a", "b", "c"].enumerated() {
      #expect(checkpoint.index(of: TensorName(name)) == position && checkpoint.fileIndex(of: position) == position / 2)
      #expect(try checkpoint.bytes(position) == TorchBuilder.six[0].data)
      let place = try #require(try checkpoint.place(of: position))
      #expect(place.file.name == checkpoint.files[position / 2].name)
      #expect(try place.file.bytes(in: place.offset..<place.offset + 24) == TorchBuilder.six[0].data)
      #expect(checkpoint.location(of: position).offset == place.offset)
    }
    #expect(checkpoint.index(of: "d") == nil && checkpoint.identities.count == 2 && checkpoint.warnings.isEmpty)
    try checkpoint.checkUnchanged()
  }

  @Test func shardsOfAnIndex() throws {
    try writeShards(index: "c \(second)\nb \(first)\na \(first)")
    let checkpoint = try open()
    #expect(checkpoint.indexName == index)
    try check(checkpoint)
    try directory.write(second, shard("d"))
    #expect(try #require(throws: Failure.self) { try checkpoint.checkUnchanged() }.code == .io)
  }

  @Test func numberedShardsWithoutAnIndex() throws {
    try writeShards(index: "")
    try directory.remove(index)
    try check(open())
    try directory.remove(second)
    try refused(.missing, "holds shard 1 of 2 but no 'pytorch_model.bin.index.json'")
  }

  @Test func indexAndShardsAgree() throws {
    try writeShards(index: "a \(first)\nc \(second)")
    try refused(.malformed, "the tensor is not listed in '\(index)'", tensor: "b")
    try writeShards(index: "a \(first)\nb \(first)\nc \(second)\nd \(second)")
    try refused(.malformed, "says the tensor is in this file, but no shard has it", tensor: "d")
    try writeShards(index: "a \(first)\nb \(second)\nc \(second)")
    try refused(.malformed, "says the tensor is in '\(second)', found in '\(first)'", tensor: "b")
    try writeShards(index: "a \(first)\nb \(first)\nc x.bin")
    try refused(.missing, "the file is missing; '\(index)' puts 1 tensor into it", tensor: "c")
    try writeShards(index: "a \(first)\nb \(first)\nc ../x.bin")
    try refused(.malformed, "names '../x.bin', which is not a plain name of a file")
    try writeShards(index: "a \(first)\na \(second)")
    try refused(.malformed, "key 'a' occurs twice")
    try writeShards(index: "")
    try refused(.malformed, "index has an empty 'weight_map'")
    try writeShards(index: "a \(first)\nb \(first)\nc \(second)")
    try directory.write(second, shard("b", "c"))
    try refused(.malformed, "the tensor is in '\(first)' too", tensor: "b")
    try writeShards(index: "a \(first)\nb \(first)\nc \(second)")
    try directory.write("pytorch_model.bin", shard("z"))
    try refused(.malformed, "does not list 'pytorch_model.bin', which lies beside it")
  }

  @Test func oneFile() throws {
    for name in ["model.pth", "adapter_model.bin", "pytorch_model.bin"] {
      try directory.write(name, shard(name))
      try directory.write("training_args.bin", [1])
      try directory.write("optimizer.pt", [1])
      #expect(try open().tensors.map(\.name) == [TensorName(name)])
    }
    let named = try open(directory.path("model.pth"))
    #expect(named.directory == nil && named.files.map(\.name) == ["model.pth"])
    try directory.remove("adapter_model.bin")
    try directory.remove("pytorch_model.bin")
    try directory.write("other.pt", shard("o"))
    try refused(.malformed, "holds 2 PyTorch files ('model.pth', 'other.pt')")
  }

  @Test func nothing() throws {
    try refused(.missing, "holds no PyTorch file")
    try directory.write("a.bin.index.json", [])
    try directory.write("b.bin.index.json", [])
    try refused(.malformed, "holds 2 indexes")
  }

  @Test func whatIsNoTensorIsSaid() throws {
    try directory.write("pytorch_model.bin", TorchBuilder.zip(TorchBuilder.mixed, TorchBuilder.mixedStorages))
    let checkpoint = try open()
    #expect(checkpoint.warnings == ["pytorch_model.bin: ignored 'epoch', which are no tensors of the model"])
    #expect(try checkpoint.place(of: 0) == nil && checkpoint.storedByteCount(of: 3) == 6)
  }
}
