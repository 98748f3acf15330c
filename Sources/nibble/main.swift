import Bytes
import Pipeline

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
  if first == "--version" {
    try StandardStream.output.write(versionText() + "\n")
    return 0
  }
  guard let verb = Tool.verbs.first(where: { $0.name == first }) else {
    let hint = nearest(to: first, among: Tool.verbs.map { $0.name }).map { ", did you mean '\($0)'?" }
    throw Failure(.usage, "unknown verb '\(first)'" + (hint ?? "; see 'nibble --help'"))
  }
  let rest = Array(words.dropFirst())
  if rest.prefix(while: { $0 != "--" }).contains(where: { $0 == "--help" || $0 == "-h" }) {
    try StandardStream.output.write(verb.help)
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
