import Bytes
import Pipeline

enum DiffVerb: Verb {
  static let name = "diff"
  static let summary = "which tensors of two checkpoints differ, and by how much"
  static let operands = "A B [options]"
  static let description = [
    "Compares the tensors of two safetensors checkpoints by value, whatever dtypes",
    "and shards they lie in; a 4-bit weight is one tensor and is dequantized. Lists",
    "tensors that only A or only B has, changes of dtype and shape, and for each that",
    "changed how many elements differ, max |B-A| and ||B-A|| / ||A||, the largest",
    "change first. 0 equals -0, NaN a NaN of the same bits. Exit code 1 for any",
    "difference.",
  ]
  static let example = [
    "nibble diff CodeLlama-13b-hf CodeLlama-13b-tuned",
    "nibble diff CodeLlama-13b-hf CodeLlama-13b-nf4 --tensor '*.mlp.*'",
  ]

  private static let tensor = Option("--tensor", value: "GLOB", "only tensors of these names (default: all)")

  static let options = [tensor, .jobs, .quiet, .json, .help]

  static func run(_ arguments: Arguments) throws(Failure) -> Int32 {
    let paths = try arguments.operands("A", "B", verb: name)
    var diff = Diff()
    diff.tensor = arguments.text(tensor)
    if let number = try arguments.number(.jobs, allowed: 1...1024) { diff.jobs = number }
    diff.progress = arguments.has(.quiet) ? .silent : .automatic
    let result = try diff(paths[0], paths[1])
    let notices = Notices(arguments)
    for warning in result.warnings { notices.warn(warning) }
    try StandardStream.output.write(arguments.has(.json) ? result.json + "\n" : result.text)
    return result.isEqual ? 0 : 1
  }
}
