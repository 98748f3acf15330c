import Bytes
import Comparison
import Console

enum DiffVerb: Verb {
  static let name = "diff"
  static let summary = "which tensors of two checkpoints differ, and by how much"
  static let operands = "A B [options]"
  static let description = [
    "Compares the tensors of two checkpoints, safetensors or GGUF, by value, in",
    "whatever dtypes and shards they lie; weights in few bits are dequantized.",
    "Lists for each tensor that changed how many elements differ, max |B-A| and",
    "||B-A|| / ||A||, the largest change first; tensors that have the same values",
    "in another dtype; and those that only A or only B has. 0 equals -0, NaN a NaN",
    "of the same bits. Exit code 1 for any difference, also for one of dtype only.",
  ]
  static let example = [
    "nibble diff CodeLlama-13b-hf CodeLlama-13b-tuned",
    "nibble diff CodeLlama-13b-hf CodeLlama-13b-nf4 --tensor '*.mlp.*'",
  ]

  private static let tensor = Option("--tensor", value: "GLOB", "only tensors of these names (default: all)")

  private static let top = Option(
    "--top", value: "N", "only the N tensors that changed most", "(default: all)")
  private static let summaryOption = Option(
    "--summary", "counts by kind of module instead of names")

  static let options = [tensor, top, summaryOption, .jobs, .quiet, .verbose, .json, .help]

  static func run(_ arguments: Arguments) throws(Failure) -> Int32 {
    let paths = try arguments.operands("A", "B", verb: name)
    var diff = Diff()
    diff.tensor = arguments.text(tensor)
    if let number = try arguments.number(.jobs, allowed: 1...1024) { diff.jobs = number }
    diff.progress = arguments.has(.quiet) ? .silent : .automatic
    let shown = try arguments.number(top, allowed: 1...Int.max)
    var result = try diff(paths[0], paths[1])
    if let shown { result.shown = shown }
    result.isSummary = arguments.has(summaryOption)
    result.isVerbose = arguments.has(.verbose)
    let notices = Notices(arguments)
    for warning in result.warnings { notices.warn(warning) }
    if arguments.has(.json) {
      try StandardStream.output.write(result.json + [UInt8(ascii: "\n")])
    } else {
      try StandardStream.output.write(result.text)
    }
    return result.isEqual ? 0 : 1
  }
}
