import Bytes
import Console
import JSON
import Writing

/// The messages on standard error while a verb runs.
struct Notices {
  let isQuiet: Bool
  let isVerbose: Bool

  init(_ arguments: Arguments) {
    isQuiet = arguments.has(.quiet)
    isVerbose = arguments.has(.verbose)
  }

  func warn(_ warning: Warning) {
    // A warning that cannot be written is no reason to stop.
    if isQuiet { return }
    let text = isVerbose ? warning.description.printable(limit: .max) : warning.brief.printable()
    try? StandardStream.error.write("nibble: warning: \(text)\n")
  }
}

extension RunReport {
  /// The report of a verb that writes a checkpoint, on standard output.
  func print(_ arguments: Arguments, verb: String) throws(Failure) {
    if arguments.has(.json) { return try StandardStream.output.write(json + "\n") }
    let isDryRun = arguments.has(.dryRun)
    var text = isDryRun ? "would write \(output.printable())" : "wrote \(output.printable())"
    text += ": \(counted(files.count, "file")), \(counted(tensors, "tensor")), \(counted(parameters, "parameter"))\n"
    if let summary { text += summary.text(isVerbose: arguments.has(.verbose)) }
    text += "\(byteText(bytesIn)) in, \(byteText(bytesOut)) out"
    if !isDryRun, seconds > 0 {
      text += ", \((seconds * 100).rounded() / 100) s, \(byteText(Int(Double(bytesIn) / seconds)))/s"
    }
    try StandardStream.output.write(text + "\n" + (adapter?.text(isDryRun: isDryRun) ?? ""))
  }
}

extension RunOptions {
  init(_ arguments: Arguments) throws(Failure) {
    self.init()
    if let number = try arguments.number(.jobs, allowed: 1...1024) { jobs = number }
    force = arguments.has(.force)
    isDryRun = arguments.has(.dryRun)
    sha256 = arguments.has(.sha256)
    config = arguments.text(.config)
    if let size = try arguments.size(.maxShardSize) { maxShardBytes = size }
    progress = arguments.has(.quiet) ? .silent : .automatic
  }
}

extension Failure {
  /// The object that `--json` prints on standard output.
  var json: String {
    JSONValue.object([
      "error": .object([
        "code": .number(Int(code.rawValue)), "file": file.map(JSONValue.string) ?? .null,
        "tensor": tensor.map(JSONValue.string) ?? .null, "offset": offset.map(JSONValue.number) ?? .null,
        "message": .string(message),
      ])
    ]).text(.indented)
  }
}
