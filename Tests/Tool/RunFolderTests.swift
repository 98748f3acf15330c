import TestSupport
import Testing

/// The directory of a training run that holds nothing but checkpoints: every verb names the newest.
@Suite struct RunFolderTests {
  static let commands: [[String]] = [
    ["inspect", "RUN"], ["verify", "RUN"], ["quantize", "RUN", "-o", "OUT"],
    ["quantize", "RUN", "-o", "OUT.gguf", "--scheme", "q8_0"], ["quantize", "RUN", "-o", "OUT", "--scheme", "mlx-q4"],
    ["convert", "RUN", "-o", "OUT"], ["convert", "RUN", "-o", "OUT.gguf"],
    ["convert", "BASE", "-o", "OUT.gguf", "--base", "RUN"],
    ["merge", "RUN", "BASE", "-o", "OUT"], ["merge", "BASE", "RUN", "-o", "OUT"],
    ["merge", "BASE", "RUN", "-o", "OUT.gguf"], ["split", "RUN", "-o", "OUT"], ["join", "RUN", "-o", "OUT"],
    ["diff", "RUN", "BASE"], ["diff", "BASE", "RUN"], ["fit", "RUN"],
    ["extract-lora", "BASE", "RUN", "-o", "OUT", "--rank", "2"],
    ["inspect", "BASE", "--stats", "--against", "RUN"], ["verify", "BASE", "--against", "RUN"],
  ]

  @Test(arguments: commands) func refused(_ command: [String]) throws {
    let directory = try TemporaryDirectory()
    for name in ["checkpoint-9", "checkpoint-40", "checkpoint-last", "runs"] {
      _ = try directory.makeDirectory("run/" + name)
    }
    let base = try TestModel.llama().write(to: directory, "base")
    let places = ["RUN": directory.path("run"), "BASE": base]
    let words = command.map { places[$0] ?? $0.replacing("OUT", with: directory.path("out")) }
    let run = try Tool.run(words)
    #expect(run.status == 66, "\(run.error)")
    let message = "holds no model, only 2 checkpoints of a training run"
    #expect(run.error.contains(message) && run.error.contains("the newest, '\(directory.path("run"))/checkpoint-40'"))
    #expect(!directory.exists("out") && !directory.exists("out.gguf"))
  }
}
