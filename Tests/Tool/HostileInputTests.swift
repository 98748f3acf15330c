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

  /// In the place of a shard a GGUF file is refused for what it is; named itself it is read as that, whatever it is
  /// called, and has to be a model to become one.
  @Test func ggufInItsPlace() throws {
    try directory.write("model/model.safetensors", making: HostileFile.gguf.bytes())
    let model = directory.path("model")
    try Refusal(status: 69, message: "is a GGUF file, expected a safetensors file").check(model, in: directory)
    let file = model + "/model.safetensors"
    #expect(try Tool.run("inspect", file).status == 0)
    let verified = try Tool.run("verify", file)
    #expect(verified.status == 1 && verified.output.contains("general.architecture"), "\(verified.output)")
    let noModel = Refusal(status: 65, message: "metadata 'general.architecture' is missing", file: "model.safetensors")
    try noModel.check(file, in: directory, verbs: ["convert", "quantize"])
    let only = try HostileDirectory.gguf.make(in: directory.makeDirectory("only"))
    #expect(try Tool.run("inspect", only).status == 0)
    try Refusal(status: 65, message: noModel.message).check(only, in: directory, verbs: ["convert", "quantize"])
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
