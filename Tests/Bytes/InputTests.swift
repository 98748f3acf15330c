import Bytes
import Foundation
import TestSupport
import Testing

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// Files and directories that come from outside.
@Suite struct InputTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func makeLink(_ name: String, to target: String) throws {
    try FileManager.default.createSymbolicLink(atPath: directory.path(name), withDestinationPath: target)
  }

  // MARK: - Files

  @Test func reading() throws {
    let bytes = (0..<10_000).map { UInt8(truncatingIfNeeded: $0 / 7) }
    let file = try InputFile(path: directory.write("a", bytes), name: "a")
    #expect(file.size == 10_000 && file.name == "a")
    for range in [0..<0, 0..<1, 9_999..<10_000, 10_000..<10_000, 100..<9_000, 0..<10_000] {
      #expect(try file.bytes(in: range) == Array(bytes[range]))
    }
    #expect(try file.contents(limit: 10_000) == bytes)
    let large = try #require(throws: Failure.self) { _ = try file.contents(limit: 9_999) }
    #expect(large.code == .malformed && large.message == "has 10000 bytes, allowed are 9999")
    for range in [-1..<1, 0..<10_001, 10_001..<10_002] {
      #expect(throws: Failure.self) { _ = try file.bytes(in: range) }
    }
  }

  @Test func changes() throws {
    let path = try directory.write("a", [1, 2, 3, 4])
    let file = try InputFile(path: path, name: "a")
    try file.checkUnchanged()
    #expect(truncate(path, 2) == 0)
    #expect(try file.bytes(in: 0..<2) == [1, 2])
    let lost = try #require(throws: Failure.self) { _ = try file.bytes(in: 0..<4) }
    #expect(lost.code == .io && lost.offset == 2 && lost.message.contains("changed meanwhile"))
    let changed = try #require(throws: Failure.self) { try file.checkUnchanged() }
    #expect(changed.code == .io && changed.message.contains("4 bytes then, 2 now"))
  }

  @Test func otherThings() throws {
    mkfifo(directory.path("pipe"), 0o644)
    for (path, code) in [
      (directory.path("pipe"), Failure.Code.malformed), (directory.path, .malformed), ("/dev/null", .malformed),
      (directory.path("no"), .missing),
      (directory.path("pipe/x"), .missing),
    ] {
      let failure = try #require(throws: Failure.self) { _ = try InputFile(path: path) }
      #expect(failure.code == code, "\(failure)")
    }
    // What the user names may be a link.
    try directory.write("a", [5])
    try makeLink("b", to: "a")
    #expect(try InputFile(path: directory.path("b")).contents(limit: 10) == [5])
  }

  @Test func mapping() throws {
    let file = try InputFile(path: directory.write("a", [1, 2, 3]))
    let map = try file.map()
    #expect(map.count == 3)
    map.bytes.withUnsafeBytes { #expect(Array($0) == [1, 2, 3]) }
    let empty = try InputFile(path: directory.write("b", [])).map()
    #expect(empty.count == 0)
    empty.bytes.withUnsafeBytes { #expect($0.isEmpty) }
  }

  // MARK: - Directories

  @Test func entries() throws {
    for name in ["b", "a", ".hidden", "é", "e\u{301}"] { try directory.write(name, []) }
    _ = try directory.makeDirectory("sub")
    mkfifo(directory.path("pipe"), 0o644)
    try makeLink("link", to: "a")
    let input = try InputDirectory(path: directory.path)
    #expect(
      try input.entries().map { Array($0.name.utf8) }
        == [".hidden", "a", "b", "e\u{301}", "link", "pipe", "sub", "é"].map { Array($0.utf8) })
    #expect(try input.entries().map(\.kind) == [.file, .file, .file, .file, .link, .other, .directory, .file])
    #expect(try input.names().count == 6)
    #expect(
      input.contains("a") && input.contains("sub") && !input.contains("no") && !input.contains("../\(directory.path)")
        && !input.contains(""))
    #expect(InputDirectory.exists(at: directory.path) && !InputDirectory.exists(at: directory.path("a")))
    let failure = try #require(throws: Failure.self) { _ = try InputDirectory(path: directory.path("no")) }
    #expect(failure.code == .missing)
  }

  @Test(arguments: [
    "../x", "..", ".", "", "/etc/passwd", "sub/a", "a/", "a\u{0}b", "a\nb", "a\u{7f}", "..\\x", "C:\\x",
    String(repeating: "n", count: 256),
  ])
  func names(_ name: String) throws {
    try directory.write("a", [])
    _ = try directory.makeDirectory("sub")
    try directory.write("sub/a", [])
    #expect(!InputDirectory.isPlainComponent(name))
    let failure = try #require(throws: Failure.self) { _ = try InputDirectory(path: directory.path).open(name) }
    #expect(failure.code == .malformed && failure.message.contains("is not a plain file name"))
  }

  @Test func foldersAreNoLinks() throws {
    for path in ["a/b", "a/b/c"] { _ = try directory.makeDirectory(path) }
    try directory.write("a/x", [1])
    try directory.write("a/b/c/x", [2])
    try makeLink("link", to: "a")
    try makeLink("a/link", to: "b")
    try makeLink("a/file", to: "x")
    let input = try InputDirectory(path: directory.path)
    #expect(try input.open(path: "a/x").contents(limit: 1) == [1])
    #expect(try input.open(path: "a/b/c/x").contents(limit: 1) == [2] && input.open(path: "a/b/c/x").name == "a/b/c/x")
    #expect(input.contains(path: "a/x") && !input.contains(path: "a/y") && !input.contains(path: "link/x"))
    for path in ["link/x", "a/link/c/x", "a/file", "a/../a/x", "./a/x", "a//x", "/etc/passwd", "a/x/", "a/y"] {
      let failure = try #require(throws: Failure.self) { _ = try input.open(path: path) }
      #expect([.malformed, .missing].contains(failure.code), "\(path)")
    }
    for (path, isPlain) in [("a", true), ("a/b/c/d", true), ("a/b/c/d/e", false), ("a/", false), ("a/..", false)] {
      #expect(InputDirectory.isPlainPath(path) == isPlain, "\(path)")
    }
  }

  @Test(arguments: [
    "a", "model-00001-of-00002.safetensors", ".x", "...", "-x", "%2e%2e", "~", "é", "a b",
    String(repeating: "n", count: 255),
  ])
  func plainNames(_ name: String) throws {
    try directory.write(name, [3])
    #expect(InputDirectory.isPlainComponent(name))
    #expect(try InputDirectory(path: directory.path).open(name).contents(limit: 1) == [3])
  }

  @Test(arguments: ["a", "/etc/hostname", "../x", "nowhere", "link", "../../blobs/0123abcd", "sub"])
  func links(_ target: String) throws {
    try directory.write("a", [1])
    _ = try directory.makeDirectory("sub")
    try makeLink("link", to: target)
    let failure = try #require(throws: Failure.self) { _ = try InputDirectory(path: directory.path).open("link") }
    #expect(failure.code == .malformed && failure.message.hasPrefix("is a symbolic link to '\(target)'"), "\(failure)")
  }

  @Test func cacheLinks() throws {
    let snapshot = try directory.makeDirectory("models--a--b/snapshots/89ab")
    _ = try directory.makeDirectory("models--a--b/blobs")
    try directory.write("models--a--b/blobs/0123abcd", [1])
    try directory.write("models--a--b/blobs/NOTHEX", [1])
    try directory.write("models--a--b/secret", [1])
    mkfifo(directory.path("models--a--b/blobs/ffff"), 0o644)
    try makeLink("models--a--b/blobs/eeee", to: "../secret")
    for (name, target) in [
      ("good", "../../blobs/0123abcd"), ("name", "../../blobs/NOTHEX"), ("up", "../../secret"),
      ("far", "../../blobs/../secret"),
      ("pipe", "../../blobs/ffff"), ("chain", "../../blobs/eeee"), ("gone", "../../blobs/aaaa"),
      ("absolute", directory.path("models--a--b/blobs/0123abcd")),
    ] { try makeLink("models--a--b/snapshots/89ab/\(name)", to: target) }
    let input = try InputDirectory(path: snapshot)
    #expect(try input.open("good").contents(limit: 1) == [1])
    #expect(try input.open("good").name == "good")
    for (name, code) in [
      ("name", Failure.Code.malformed), ("up", .malformed), ("far", .malformed), ("pipe", .malformed),
      ("absolute", .malformed), ("gone", .missing),
      ("chain", .missing),
    ] {
      let failure = try #require(throws: Failure.self) { _ = try input.open(name) }
      #expect(failure.code == code, "\(name): \(failure)")
    }
    // Only below `models--…/snapshots`.
    _ = try directory.makeDirectory("other/snapshots/89ab")
    _ = try directory.makeDirectory("other/blobs")
    try directory.write("other/blobs/0123abcd", [1])
    try makeLink("other/snapshots/89ab/good", to: "../../blobs/0123abcd")
    #expect(throws: Failure.self) { _ = try InputDirectory(path: directory.path("other/snapshots/89ab")).open("good") }
  }

  // MARK: - Identity

  @Test func identity() throws {
    let path = try directory.write("a", [1])
    #expect(link(path, directory.path("b")) == 0)
    try directory.write("c", [1])
    let one = try #require(FileIdentity(path: path))
    let hard = try #require(FileIdentity(path: directory.path("b")))
    let other = try #require(FileIdentity(path: directory.path("c")))
    #expect(one == hard && one.isSameFile(as: hard) && !one.isSameFile(as: other) && one != other && one.size == 1)
    try directory.write("a", [1, 2])
    #expect(FileIdentity(path: directory.path("no")) == nil)
  }
}
