import Bytes
import Commands
import Console

enum InspectVerb: Verb {
  static let name = "inspect"
  static let summary = "what a checkpoint holds: tensors, dtypes, sizes, values"
  static let operands = "PATH [options]"
  static let description = [
    "Lists the tensors of a model or an adapter, a directory or a file, safetensors",
    "or GGUF, from headers alone; a 4-bit weight and its statistics are one row.",
    "--stats reads the values.",
  ]
  static let example = [
    "nibble inspect CodeLlama-13b-nf4",
    "nibble inspect CodeLlama-13b-nf4 --stats --against CodeLlama-13b-hf",
  ]

  private static let raw = Option("--raw", "list what is physically there")
  private static let tensor = Option("--tensor", value: "GLOB", "only tensors of these names")
  private static let stats = Option(
    "--stats", "min, max, mean, standard deviation, fraction of", "zeros, NaN and infinity counts")
  private static let against = Option(
    "--against", value: "MODEL", "with --stats: how far quantized weights are from", "those of this checkpoint")
  private static let metadata = Option("--metadata", "the files' own metadata instead of tensors")

  static let options = [raw, tensor, stats, against, metadata, .jobs, .quiet, .verbose, .json, .help]

  static func run(_ arguments: Arguments) throws(Failure) -> Int32 {
    let path = try arguments.operands("PATH", verb: name)[0]
    var inspect = Inspect()
    inspect.isRaw = arguments.has(raw)
    inspect.tensor = arguments.text(tensor)
    inspect.wantsStatistics = arguments.has(stats)
    inspect.wantsMetadata = arguments.has(metadata)
    inspect.against = arguments.text(against)
    if inspect.against != nil, !inspect.wantsStatistics {
      throw Failure(.usage, "option '--against' goes with '--stats'")
    }
    if inspect.isRaw, inspect.against != nil {
      throw Failure(.usage, "options '--raw' and '--against' exclude each other: raw codes have no values to compare")
    }
    if let number = try arguments.number(.jobs, allowed: 1...1024) { inspect.jobs = number }
    inspect.progress = arguments.has(.quiet) ? .silent : .automatic
    let result = try inspect(path)
    let notices = Notices(arguments)
    for warning in result.warnings { notices.warn(warning) }
    if arguments.has(.json) {
      try result.writeJSON { bytes throws(Failure) in try StandardStream.output.write(bytes) }
    } else {
      try StandardStream.output.write(arguments.has(metadata) ? result.metadataText : result.table)
    }
    return 0
  }
}
