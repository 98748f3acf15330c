/// One option of a verb, as it is parsed and as help shows it.
struct Option: Sendable {
  /// The name with its dashes: `--block-size`.
  let name: String
  /// A one-letter form: `-o`.
  let short: String?
  /// The placeholder of the value in help (`N`); nil for a switch.
  let value: String?
  /// One or more lines of at most 49 characters, the default named.
  let help: [String]
  let isRepeatable: Bool
  /// Another program's name for it, which is taken too.
  let alias: String?

  init(
    _ name: String, short: String? = nil, alias: String? = nil, value: String? = nil, repeatable: Bool = false,
    _ help: String...
  ) {
    self.name = name
    self.short = short
    self.alias = alias
    self.value = value
    self.help = help
    isRepeatable = repeatable
  }

  /// Whether a word of a command line is one of its names.
  func isNamed(_ word: String) -> Bool { word == name || word == short || word == alias }

  static let json = Option("--json", "one JSON object on standard output, nothing else")
  static let quiet = Option("--quiet", short: "-q", "no progress, no warnings")
  static let verbose = Option("--verbose", "every name, where otherwise a few stand for all")
  static let jobs = Option("--jobs", value: "N", "worker threads (default: all processors)")
  static let force = Option("--force", "replace a checkpoint that already exists")
  static let dryRun = Option("--dry-run", "plan and report, write nothing")
  static let help = Option("--help", short: "-h", "this text")
  static let output = Option("--output", short: "-o", value: "OUT", "directory, or GGUF file, to create (required)")
  static let maxShardSize = Option("--max-shard-size", value: "SIZE", "data per shard, 5GB or 5GiB (default: 5GB)")
  static let config = Option(
    "--config", value: "DIR", "where config.json and tokenizer are, if elsewhere")
  static let sha256 = Option("--sha256", "SHA-256 of every file too, which shows forgery")

  /// The options of every verb that writes a checkpoint.
  static let writing = [sha256, force, dryRun, jobs, quiet, verbose, json, help]
}
