import Bytes
import JSON
import Pipeline

/// What goes to standard error while a verb runs.
struct Notices {
  let isQuiet: Bool

  init(_ arguments: Arguments) { isQuiet = arguments.has(.quiet) }

  func warn(_ text: String) {
    // A warning that cannot be written is no reason to stop.
    if !isQuiet { try? StandardStream.error.write("nibble: warning: \(text.printable())\n") }
  }
}

extension RunReport {
  /// The report of a verb that writes a checkpoint, on standard output.
  func print(_ arguments: Arguments, verb: String) throws(Failure) {
    if arguments.has(.json) { return try StandardStream.output.write(json + "\n") }
    let isDryRun = arguments.has(.dryRun)
    var text = isDryRun ? "would write \(output.printable())" : "wrote \(output.printable())"
    text += ": \(files.count) files, \(tensors) tensors, \(parameters) parameters\n"
    text += "\(byteText(bytesIn)) in, \(byteText(bytesOut)) out"
    if !isDryRun, seconds > 0 {
      text += ", \((seconds * 100).rounded() / 100) s, \(byteText(Int(Double(bytesIn) / seconds)))/s"
    }
    try StandardStream.output.write(text + "\n")
  }
}

extension RunReport {
  /// One line for each tensor that an adapter changed.
  func printChanges() throws(Failure) {
    guard let changes, !changes.isEmpty else { return }
    let names = changes.map { $0.tensor.printable(limit: 200) }
    let width = min(72, names.map(\.count).max() ?? 0)
    var text = ""
    for (name, change) in zip(names, changes) {
      text += name + String(repeating: " ", count: max(0, width - name.count))
      text += "  \(change.adapter.printable(limit: 80))"
      text += change.scale.map { "  scale \(shortText($0))" } ?? "  replaced"
      if let relative = change.relativeChange { text += "  change \(shortText(relative * 100)) %" }
      text += "\n"
    }
    try StandardStream.output.write(text)
  }

  /// Four significant digits.
  private func shortText(_ value: Double) -> String {
    guard value != 0, value.isFinite else { return "0" }
    var scale = 1.0
    while value.magnitude * scale < 1000 { scale *= 10 }
    let rounded = (value * scale).rounded() / scale
    return rounded == rounded.rounded() && rounded.magnitude < 1e9 ? String(Int(rounded)) : String(rounded)
  }
}

extension RunOptions {
  init(_ arguments: Arguments) throws(Failure) {
    self.init()
    if let number = try arguments.number(.jobs, allowed: 1...1024) { jobs = number }
    force = arguments.has(.force)
    isDryRun = arguments.has(.dryRun)
    sha256 = arguments.has(.sha256)
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
