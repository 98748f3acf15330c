import Bytes
import Commands
import Writing

enum SplitVerb: Verb {
  static let name = "split"
  static let summary = "the same tensors in several files of a limited size"
  static let operands = "SOURCE -o OUT [options]"
  static let description = [
    "Cuts a model into shards and copies every tensor byte for byte; a 4-bit weight",
    "stays with its statistics. Of a GGUF model OUT-00001-of-000NN.gguf and so on",
    "are written, as llama-gguf-split does; of safetensors the directory OUT with",
    "shards, index and every side file. 'nibble join' is the way back.",
  ]
  static let example = [
    "nibble split CodeLlama-13b.gguf -o CodeLlama-13b --max-shard-size 4GB",
    "nibble split CodeLlama-13b-nf4 -o CodeLlama-nf4-shards --max-shard-size 1GB",
  ]

  static let output = Option("--output", short: "-o", value: "OUT", "directory, or GGUF name, to create (required)")
  static let options = [output, .maxShardSize] + Option.writing

  static func run(_ arguments: Arguments) throws(Failure) -> Int32 {
    let source = try arguments.operands("SOURCE", verb: name)[0]
    let target = try arguments.required(output, verb: name)
    try OutputName.check(target)
    var split = Reshard(.split)
    split.run = try RunOptions(arguments)
    try split(source, output: target, announce: Notices(arguments).warn).print(arguments, verb: name)
    return 0
  }
}
