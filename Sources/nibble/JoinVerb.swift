import Bytes
import Commands
import Writing

enum JoinVerb: Verb {
  static let name = "join"
  static let summary = "the same tensors in one file"
  static let operands = "SOURCE -o OUT [options]"
  static let description = [
    "Puts a sharded model into one file, every tensor byte for byte. SOURCE is a",
    "directory, or any file of a GGUF split; OUT is the GGUF file to create, or for",
    "safetensors the directory, with every side file.",
  ]
  static let example = [
    "nibble join CodeLlama-13b-00001-of-00003.gguf -o CodeLlama-13b.gguf",
    "nibble join CodeLlama-nf4-shards -o CodeLlama-13b-nf4",
  ]

  static let options = [SplitVerb.output] + Option.writing

  static func run(_ arguments: Arguments) throws(Failure) -> Int32 {
    let source = try arguments.operands("SOURCE", verb: name)[0]
    let target = try arguments.required(SplitVerb.output, verb: name)
    try OutputName.check(target)
    var join = Reshard(.join)
    join.run = try RunOptions(arguments)
    try join(source, output: target, announce: Notices(arguments).warn).print(arguments, verb: name)
    return 0
  }
}
