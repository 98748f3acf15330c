import Foundation
import TestSupport
import Testing

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// Where the output may not go; whatever is there stays as it was.
@Suite struct OutputPlaceTests {
  let directory: TemporaryDirectory
  let model: String

  init() throws {
    directory = try TemporaryDirectory()
    model = try TestModel(layers: 1).write(to: directory)
  }

  static let verbs = ["quantize", "convert"]

  /// The output is refused before anything is read, and nothing changes.
  private func expectRefused(
    _ out: String, _ message: String, source: String? = nil, options: [String] = [],
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let before = try Snapshot(directory.path)
    for verb in Self.verbs {
      let run = try Tool.run(
        [verb, source ?? model, "-o", out, "--json", "--quiet"] + options, sourceLocation: sourceLocation)
      Refusal(status: 73, message: message).check(run, verb, sourceLocation)
    }
    #expect(try Snapshot(directory.path) == before, sourceLocation: sourceLocation)
  }

  private func expectWritten(_ out: String, options: [String] = [], sourceLocation: SourceLocation = #_sourceLocation)
    throws
  {
    let run = try Tool.run(["quantize", model, "-o", out] + options, sourceLocation: sourceLocation)
    #expect(run.status == 0, "\(run.error)", sourceLocation: sourceLocation)
    #expect(try Tool.run("verify", out).status == 0, sourceLocation: sourceLocation)
    #expect(try leftovers() == [], sourceLocation: sourceLocation)
  }

  private func leftovers() throws -> [String] { try directory.names.filter { $0.hasPrefix(".") } }

  @Test func existingCheckpoint() throws {
    let out = directory.path("out")
    try expectWritten(out)
    try expectRefused(out, "already exists (use --force to replace it)")
    let before = try Snapshot(out)
    try expectWritten(out, options: ["--force", "--scheme", "fp4"])
    #expect(try Snapshot(out) != before)
    try expectWritten(out, options: ["--force"])
    #expect(try Snapshot(out) == before)
  }

  @Test func emptyDirectoryIsTakenOver() throws {
    try expectWritten(directory.makeDirectory("out"))
    try expectWritten(directory.makeDirectory("out2") + "/")
  }

  @Test func otherThings() throws {
    try expectRefused(directory.write("file", [1]), "already exists and is a regular file", options: ["--force"])
    try directory.write("photos/a.jpg", making: [1])
    try expectRefused(directory.path("photos"), "is not a checkpoint", options: ["--force"])
    try directory.write("photos/config.json", making: [1])
    try directory.write("photos/sub/b", making: [1])
    try expectRefused(directory.path("photos"), "holds 'sub', which is not a file", options: ["--force"])
    try expectRefused(directory.path("no/such/parent"), "cannot open the parent directory")
    try expectRefused(directory.path("file/out"), "cannot open the parent directory")
    for name in ["..", "x/.."] {
      try expectRefused(directory.path("model/") + name, "is not a usable name")
    }
    try expectRefused(directory.path(String(repeating: "n", count: 256)), "is not a usable name")
    try expectRefused(directory.path("a\u{1b}b"), "a\\u{1b}b: is not a usable name")
  }

  // MARK: - The input

  @Test(arguments: [[], ["--force"]])
  func input(_ options: [String]) throws {
    try FileManager.default.createSymbolicLink(atPath: directory.path("here"), withDestinationPath: directory.path)
    _ = try directory.makeDirectory("a")
    for path in ["model", "model/", "./model/.", "a/../model", "here/model", "model/../model"] {
      try expectRefused(directory.path(path), "is the input itself", options: options)
    }
    _ = try directory.makeDirectory("model/sub")
    for path in ["model/out", "model/sub/out", "a/../model/out", "here/model/sub/out"] {
      try expectRefused(directory.path(path), "lies inside the input directory", options: options)
    }
    let single = model + "/model.safetensors"
    try expectRefused(single, "already exists and is a regular file", source: single, options: options)
  }

  @Test func directoryOfTheInputFile() throws {
    let single = model + "/model.safetensors"
    try expectRefused(model, "already exists", source: single)
    try expectRefused(model, "holds the input", source: single, options: ["--force"])
    // A neighbour of the input file is as good as any other place.
    #expect(try Tool.run("convert", single, "-o", model + "/out").status == 0)
  }

  @Test func directoryAboveTheInput() throws {
    try directory.write("config.json", [0x7B, 0x7D])
    try expectRefused(directory.path, "holds 'model', which is not a file", options: ["--force"])
  }

  @Test(.enabled(if: Machine.canMount, "\(Machine.needsMounts)"))
  func inputThroughABindMount() throws {
    let other = try directory.makeDirectory("other")
    try #require(Machine.succeeds(["mount", "--bind", model, other]))
    defer { _ = Machine.succeeds(["umount", other]) }
    try expectRefused(other, "is the input itself", options: ["--force"])
    try expectRefused(other + "/out", "lies inside the input directory")
  }

  // MARK: - Links

  @Test func symbolicLinks() throws {
    let target = try directory.makeDirectory("target")
    for (name, destination) in [("link", target), ("dangling", "nowhere"), ("loop", "loop"), ("passwd", "/etc/passwd")]
    {
      try FileManager.default.createSymbolicLink(atPath: directory.path(name), withDestinationPath: destination)
      for options in [[], ["--force"]] {
        try expectRefused(directory.path(name), "already exists and is a symbolic link", options: options)
      }
    }
    // The way to the output may lead over links.
    try FileManager.default.createSymbolicLink(atPath: directory.path("way"), withDestinationPath: target)
    try expectWritten(directory.path("way/out"))
  }

  /// Somebody else has made something under the hidden name.
  @Test func plantedName() throws {
    let victim = try directory.makeDirectory("victim")
    try directory.write("victim/precious", [1])
    let hidden = directory.path(".out.nibble-partial")
    let out = directory.path("out")
    try FileManager.default.createSymbolicLink(atPath: hidden, withDestinationPath: victim)
    try expectRefused(out, "out: cannot open '.out.nibble-partial'")
    try FileManager.default.removeItem(atPath: hidden)
    try directory.write(".out.nibble-partial", [1])
    try expectRefused(out, "out: cannot open '.out.nibble-partial'")
    try FileManager.default.removeItem(atPath: hidden)
    // The leavings of a killed run, among them a link: it goes, its target does not.
    try directory.write(".out.nibble-partial/model.safetensors", making: [1, 2, 3])
    try FileManager.default.createSymbolicLink(atPath: hidden + "/link", withDestinationPath: victim + "/precious")
    try expectWritten(out)
    #expect(try directory.read("victim/precious") == [1])
  }

  // MARK: - No right to write

  @Test(.enabled(if: Machine.canBeNobody, "\(Machine.needsOtherUser)"))
  func readOnlyParent() throws {
    let parent = try directory.makeDirectory("parent")
    chmod(parent, 0o555)
    chmod(directory.path, 0o755)
    let before = try Snapshot(directory.path)
    let run = try Tool.run(["quantize", model, "-o", parent + "/out", "--json", "--quiet"], through: Machine.asNobody)
    Refusal(status: 73, message: "Permission denied").check(run, "quantize")
    #expect(try Snapshot(directory.path) == before)
    chmod(parent, 0o777)
    let twin = try Tool.run(["quantize", model, "-o", parent + "/out"], through: Machine.asNobody)
    #expect(twin.status == 0, "\(twin.error)")
  }

  @Test(.enabled(if: Machine.isRoot && Machine.program("chattr") != nil, "needs root and chattr"))
  func immutableParent() throws {
    let parent = try directory.makeDirectory("parent")
    guard Machine.succeeds(["chattr", "+i", parent]) else {
      print("skipped: this file system has no immutable directories")
      return
    }
    defer { _ = Machine.succeeds(["chattr", "-i", parent]) }
    try expectRefused(parent + "/out", "Operation not permitted")
  }

  @Test(.enabled(if: Machine.canMount, "\(Machine.needsMounts)"))
  func readOnlyFileSystem() throws {
    let disk = try SmallDisk("size=1m")
    try #require(Machine.succeeds(["mount", "-o", "remount,ro", disk.path]))
    try expectRefused(disk.path + "/out", "Read-only file system")
  }

  /// `--force` on a checkpoint of which one file cannot be removed: the new one is in place and whole.
  @Test(.enabled(if: Machine.isRoot && Machine.program("chattr") != nil, "needs root and chattr"))
  func oldFileThatCannotBeRemoved() throws {
    let out = directory.path("out")
    try expectWritten(out)
    try directory.write("out/notes.txt", [1])
    guard Machine.succeeds(["chattr", "+i", out + "/notes.txt"]) else {
      print("skipped: this file system has no immutable files")
      return
    }
    let run = try Tool.run("quantize", model, "-o", out, "--force")
    #expect(try Tool.run("verify", out).status == 0, "\(run.error)")
    #expect(run.status == 0, "\(run.error)")
    #expect(run.error.contains("cannot remove the leftover 'notes.txt'") && run.error.contains("'.out.nibble-old'"))
    // Nor is the next run stopped by it.
    #expect(try Tool.run("quantize", model, "-o", out, "--force").status == 0)
    for place in [out, directory.path(".out.nibble-old")] {
      _ = Machine.succeeds(["chattr", "-i", place + "/notes.txt"])
    }
    try expectWritten(out, options: ["--force"])
  }
}
