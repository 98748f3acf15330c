import Foundation
import JSON
import TestSupport
import Testing

/// Every bad file and directory, given to the tool itself; the libraries' own tests hold each message to
/// its cause.
@Suite struct HostileInputTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  @Test(arguments: HostileFile.safetensors)
  func fileIsRefused(_ file: HostileFile) throws {
    try directory.write("model/model.safetensors", making: file.bytes())
    let refusal = Refusal(status: file.exitCode, message: file.message, tensor: file.tensor)
    try refusal.check(directory.path("model"), in: directory)
    try refusal.check(directory.path("model/model.safetensors"), in: directory, verbs: ["inspect"])
  }

  @Test(arguments: HostileFile.safetensors)
  func twinOfFileIsConverted(_ file: HostileFile) throws {
    try directory.write("model/model.safetensors", making: file.twin())
    let run = try Tool.run("convert", directory.path("model"), "-o", directory.path("out"))
    #expect(run.status == 0, "\(run.error)")
    #expect(try Tool.run("verify", directory.path("out"), "--against", directory.path("model")).status == 0)
  }

  @Test(arguments: HostileDirectory.safetensors)
  func directory(_ row: HostileDirectory) throws {
    let path = try row.make(in: directory.makeDirectory("d"))
    if row.exitCode == 0 {
      for verb in ["inspect", "verify"] {
        let run = try Tool.run(verb, path)
        #expect(run.status == 0, "\(run.error)")
        if let message = row.message { #expect(run.error.contains(message), "\(run.error)") }
        #expect(run.errorLines.isEmpty)
      }
      let run = try Tool.run("convert", path, "-o", directory.path("out"))
      #expect(run.status == 0, "\(run.error)")
    } else {
      try Refusal(status: row.exitCode, message: row.message ?? "", tensor: row.tensor).check(path, in: directory)
    }
  }

  /// Cut anywhere, a file is refused by every verb in the same way (a few cuts here, all of them in the library's tests).
  @Test func truncation() throws {
    let whole = SafetensorsBuilder.small.bytes
    for count in stride(from: 0, to: whole.count, by: 23) {
      try directory.write("model/model.safetensors", making: Array(whole.prefix(count)))
      try Refusal(status: 65, message: "").check(directory.path("model"), in: directory)
    }
    try directory.write("model/model.safetensors", making: whole)
    #expect(try Tool.run("inspect", directory.path("model")).status == 0)
  }
}

extension TemporaryDirectory {
  /// Writes a file and the directories on the way to it.
  func write(_ name: String, making bytes: [UInt8]) throws {
    let parent = URL(fileURLWithPath: path(name)).deletingLastPathComponent()
    try FileManager.default.createDirectory(at: parent, withIntermediateDirectories: true)
    try write(name, bytes)
  }
}
