import Bytes

/// Runs the command line and answers with the process's exit code.
func run(_ words: [String]) throws(Failure) -> Int32 {
  guard let first = words.first else {
    try StandardStream.error.write(Tool.help)
    return Failure.Code.usage.rawValue
  }
  if first == "--help" || first == "-h" || first == "help" && words.count == 1 {
    try StandardStream.output.write(Tool.help)
    return 0
  }
  if first == "--version" || first == "-V" {
    try StandardStream.output.write(versionText() + "\n")
    return 0
  }
  if first == "help" {
    guard words.count == 2 else { throw Failure(.usage, "unexpected argument '\(words[2])'; see 'nibble --help'") }
    try StandardStream.output.write(Tool.verb(words[1]).help)
    return 0
  }
  // `nibble --quiet verify m` is `nibble verify m --quiet`.
  let leading = words.prefix { ["-q", "--quiet", "--verbose", "--json"].contains($0) }
  if !leading.isEmpty, leading.count < words.count {
    let rest = words.dropFirst(leading.count)
    return try run([rest[rest.startIndex]] + leading + rest.dropFirst())
  }
  let verb = try Tool.verb(first)
  let rest = Array(words.dropFirst())
  let options = rest.prefix { $0 != "--" }
  if options.contains(where: { $0 == "--help" || $0 == "-h" }) {
    try StandardStream.output.write(verb.help)
    return 0
  }
  if options.contains(where: { $0 == "--version" || $0 == "-V" }) {
    try StandardStream.output.write(versionText() + "\n")
    return 0
  }
  return try verb.run(Arguments(rest, options: verb.options, verb: verb.name))
}

Interruption.install()
let words = Array(CommandLine.arguments.dropFirst())
var status: Int32
do throws(Failure) {
  status = try run(words)
} catch {
  status = error.code.rawValue
  // Behind `| head` there is nobody left to tell.
  if error.code == .brokenPipe { exitProcess(status) }
  try? StandardStream.error.write("nibble: error: \(error)\n")
  if words.prefix(while: { $0 != "--" }).contains("--json") { try? StandardStream.output.write(error.json + "\n") }
}
exitProcess(status)
