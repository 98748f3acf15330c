import Bytes
import Foundation
import TestSupport
import Testing

/// A directory that appears whole or not at all.
@Suite struct StagedDirectoryTests {
  let directory: TemporaryDirectory
  let out: String

  init() throws {
    directory = try TemporaryDirectory()
    out = directory.path("out")
  }

  private func write(_ staged: borrowing StagedDirectory, _ name: String, _ bytes: [UInt8]) throws(Failure) {
    let file = try staged.files.create(name)
    try file.append(bytes)
    #expect(file.size == bytes.count)
    try file.finish()
  }

  private func commit(_ name: String, _ bytes: [UInt8], replacing: Bool = false) throws {
    let staged = try StagedDirectory(path: out, replacing: replacing)
    try write(staged, name, bytes)
    try staged.commit()
  }

  @Test func appearsWhole() throws {
    let staged = try StagedDirectory(path: out, replacing: false)
    #expect(try directory.names == [".out.nibble-partial"])
    let free = staged.files.freeBytes()
    #expect((free ?? 0) > 0)
    try write(staged, "config.json", [1, 2, 3])
    try write(staged, "empty", [])
    #expect(!FileManager.default.fileExists(atPath: out))
    try staged.commit()
    #expect(try directory.names == ["out"])
    #expect(try directory.read("out/config.json") == [1, 2, 3] && directory.read("out/empty") == [])
  }

  private struct Stop: Error {}

  @Test func vanishesOnError() throws {
    #expect(throws: Stop.self) {
      let staged = try StagedDirectory(path: out, replacing: false)
      try write(staged, "config.json", [1])
      throw Stop()
    }
    #expect(try directory.names.isEmpty)
  }

  @Test func isLocked() throws {
    let first = try StagedDirectory(path: out, replacing: false)
    let failure = try #require(throws: Failure.self) { _ = try StagedDirectory(path: out, replacing: true) }
    #expect(failure.code == .locked && failure.file == out)
    // What the first one made is still there.
    try write(first, "a", [1])
    try first.commit()
    #expect(try directory.names == ["out"])
    // The lock went with the first one.
    try FileManager.default.removeItem(atPath: out)
    try commit("config.json", [2])
  }

  @Test func leftoversAreRemoved() throws {
    try FileManager.default.createDirectory(
      atPath: directory.path(".out.nibble-partial"), withIntermediateDirectories: false)
    try directory.write(".out.nibble-partial/old", [9])
    try commit("config.json", [1])
    #expect(try FileManager.default.contentsOfDirectory(atPath: out) == ["config.json"])
  }

  @Test func replaces() throws {
    try commit("config.json", [1])
    let refused = try #require(throws: Failure.self) { try commit("config.json", [2]) }
    #expect(refused.code == .cannotCreate && refused.message.contains("--force"))
    #expect(try directory.read("out/config.json") == [1])
    try commit("other.safetensors", [3], replacing: true)
    #expect(
      try directory.names == ["out"] && FileManager.default.contentsOfDirectory(atPath: out) == ["other.safetensors"])
    // Until it commits, the old one stays.
    #expect(throws: Stop.self) {
      let staged = try StagedDirectory(path: out, replacing: true)
      try write(staged, "config.json", [4])
      throw Stop()
    }
    #expect(try FileManager.default.contentsOfDirectory(atPath: out) == ["other.safetensors"])
  }

  @Test func fileNames() throws {
    let staged = try StagedDirectory(path: out, replacing: false)
    try write(staged, "a", [1])
    for name in ["../a", "a/b", "", ".", "..", "a\u{0}b", "a\nb", "a\\b", String(repeating: "n", count: 256)] {
      let failure = try #require(throws: Failure.self) { try write(staged, name, []) }
      #expect(failure.code == .internal)
    }
    // Never over a file that is there.
    let twice = try #require(throws: Failure.self) { try write(staged, "a", [2]) }
    #expect(twice.code == .cannotCreate)
    try staged.commit()
  }

  @Test func folders() throws {
    try FileManager.default.createDirectory(atPath: directory.path("victim"), withIntermediateDirectories: false)
    let staged = try StagedDirectory(path: out, replacing: false)
    for path in ["a", "b/c", "b/d", "b/e/f/g"] {
      let file = try staged.files.create(path: path)
      #expect(file.name == path)
      try file.append([1, 2])
      try file.finish()
    }
    try directory.link(".out.nibble-partial/link", to: directory.path("victim"))
    for path in ["", "/a", "b/", "b//c", "../x", "b/../x", "b/./x", "b/c\n", "1/2/3/4/5", "b/c", "b", "a/x", "link/x"] {
      let failure = try #require(throws: Failure.self) { _ = try staged.files.create(path: path) }
      #expect(failure.code == .cannotCreate, "\(path)")
    }
    try staged.commit()
    #expect(try directory.read("out/b/e/f/g") == [1, 2] && directory.read("out/b/d") == [1, 2])
    #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path("victim")).isEmpty)
  }

  @Test func foldersVanish() throws {
    #expect(throws: Stop.self) {
      let staged = try StagedDirectory(path: out, replacing: false)
      _ = try staged.files.create(path: "b/e/f/g")
      throw Stop()
    }
    #expect(try directory.names.isEmpty)
  }

  /// What is replaced may hold the folders that it lists.
  @Test func replacedFolders() throws {
    func write(_ list: String) throws {
      let staged = try StagedDirectory(path: out, replacing: true)
      for (name, text) in [("config.json", "{}"), ("b/c", ""), ("checksums.xxh128", list)] {
        let file = try staged.files.create(path: name)
        try file.append(Array(text.utf8))
        try file.finish()
      }
      #expect(try staged.commit() == nil)
    }
    let digest = String(repeating: "0", count: 32)
    try write("\(digest)  b/c\n")
    try write("\(digest)  b/d\n")
    let failure = try #require(throws: Failure.self) { try write("") }
    #expect(
      failure.code == .cannotCreate && failure.message.contains("holds 'b/c', which its checksums.xxh128 does not"))
    #expect(try directory.names == ["out"] && directory.exists("out/b/c"))
  }

  /// Nor is what lies in such a folder taken away from under the run that reads it.
  @Test func inputInAFolder() throws {
    let digest = String(repeating: "0", count: 32)
    for folder in ["out", "out/sub", "out/sub/ad"] { _ = try directory.makeDirectory(folder) }
    try directory.write("out/config.json", Array("{}".utf8))
    try directory.write("out/sub/ad/adapter.json", [1])
    try directory.write("out/checksums.xxh128", Array("\(digest)  sub/ad/adapter.json\n".utf8))
    for input in ["sub", "sub/ad", "sub/ad/adapter.json"] {
      let identity = try #require(FileIdentity(path: out + "/" + input))
      let failure = try #require(throws: Failure.self) {
        _ = try StagedDirectory(path: out, replacing: true, inputs: [identity])
      }
      #expect(failure.code == .cannotCreate && failure.message == "holds the input '\(input)'")
    }
    let staged = try StagedDirectory(path: out, replacing: true)
    try staged.files.create("config.json").finish()
    #expect(try staged.commit() == nil)
    #expect(directory.exists("out/config.json") && !directory.exists("out/sub"))
  }

  @Test func inputs() throws {
    let model = try directory.makeDirectory("model")
    let file = try directory.write("model/model.safetensors", [1])
    let inputs = [try #require(FileIdentity(path: model))]
    for path in [model, model + "/out", model + "/../model", directory.path + "/./model/sub"] {
      _ = try directory.makeDirectory("model/empty")
      let failure = try #require(throws: Failure.self) {
        _ = try StagedDirectory(path: path, replacing: true, inputs: inputs)
      }
      #expect(failure.code == .cannotCreate, "\(path)")
    }
    let single = [try #require(FileIdentity(path: file))]
    try FileManager.default.removeItem(atPath: model + "/empty")
    let failure = try #require(throws: Failure.self) {
      _ = try StagedDirectory(path: model, replacing: true, inputs: single)
    }
    #expect(failure.code == .cannotCreate && failure.message == "holds the input 'model.safetensors'")
    #expect(try directory.names == ["model"] && directory.read("model/model.safetensors") == [1])
  }
}
