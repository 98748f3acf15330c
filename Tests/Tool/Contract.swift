import Bytes
import Foundation
import JSON
import TestSupport
import Testing

/// What every refusal has in common, whatever the verb that met the input.
struct Refusal: Sendable {
  var status: Int32
  /// Part of the message.
  var message: String
  var file: String?
  var tensor: String?

  /// Verbs that read a checkpoint, with what follows the source.
  static let verbs: [(verb: String, writes: Bool)] = [
    ("inspect", false), ("verify", false), ("convert", true), ("quantize", true),
  ]

  /// Gives `source` to every verb and holds each to the same answer: the exit code, one line on standard
  /// error, the same fields as JSON, nothing written, nothing altered.
  ///
  /// - Parameters:
  ///   - directory: what must stay as it is, `source` included.
  ///   - line: the one line, where all of it is known.
  func check(
    _ source: String, in directory: TemporaryDirectory, verbs: [String]? = nil, options: [String] = [],
    line: String? = nil, limit: Double = 10, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let before = try Snapshot(directory.path)
    var first: String?
    for (verb, writes) in Self.verbs where verbs?.contains(verb) ?? true {
      let target = writes ? ["-o", directory.path("refused-output")] : []
      let run = try Tool.run([verb, source, "--json"] + target + options, limit: limit, sourceLocation: sourceLocation)
      check(run, verb, sourceLocation)
      if let first {
        #expect(run.error == first, "\(verb) answers otherwise", sourceLocation: sourceLocation)
      } else {
        let plain = try Tool.run([verb, source] + target + options, limit: limit, sourceLocation: sourceLocation)
        #expect(plain.status == run.status && plain.error == run.error, sourceLocation: sourceLocation)
        #expect(plain.output == "", sourceLocation: sourceLocation)
      }
      first = run.error
    }
    if let line { #expect(first == "nibble: error: \(line)\n", sourceLocation: sourceLocation) }
    let after = try Snapshot(directory.path)
    #expect(after == before, "something was written", sourceLocation: sourceLocation)
  }

  /// One answer of one verb that was run with `--json`.
  func check(_ run: Tool.Result, _ verb: String, _ sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(run.status == status, "\(verb): \(run.error)", sourceLocation: sourceLocation)
    let lines = run.error.split(separator: "\n", omittingEmptySubsequences: false)
    #expect(lines.count == 2 && lines.last == "", "not one line: \(run.error)", sourceLocation: sourceLocation)
    #expect(run.error.hasPrefix("nibble: error: "), sourceLocation: sourceLocation)
    #expect(message.isEmpty || run.error.contains(message), "\(verb): \(run.error)", sourceLocation: sourceLocation)
    #expect(run.error.utf8.count <= 4096, sourceLocation: sourceLocation)
    expectPrintable(run.error, sourceLocation)
    guard let json = parse(run.output, sourceLocation), let error = json["error"] else {
      Issue.record("\(verb): no error object: \(run.output)", sourceLocation: sourceLocation)
      return
    }
    #expect(json.object?.count == 1, sourceLocation: sourceLocation)
    #expect(
      error.object?.keys.map { $0 } == ["code", "file", "tensor", "offset", "message"], sourceLocation: sourceLocation)
    #expect(error["code"]?.int == Int(status), sourceLocation: sourceLocation)
    if let file { #expect(error["file"]?.string == file, sourceLocation: sourceLocation) }
    if let tensor { #expect(error["tensor"]?.string == tensor, sourceLocation: sourceLocation) }
    // The line is made of the same fields.
    let same = Failure(
      .malformed, error["message"]?.string ?? "", file: error["file"]?.string, tensor: error["tensor"]?.string,
      offset: error["offset"]?.int)
    #expect(run.error == "nibble: error: \(same)\n", sourceLocation: sourceLocation)
  }
}

/// One JSON document and nothing else.
func parse(_ text: String, _ sourceLocation: SourceLocation = #_sourceLocation) -> JSONValue? {
  do {
    return try JSONValue(parsing: Array(text.utf8))
  } catch {
    Issue.record("not JSON: \(error): \(text.prefix(500))", sourceLocation: sourceLocation)
    return nil
  }
}

/// No byte that moves the cursor, reorders text or stays unseen.
func expectPrintable(_ text: String, _ sourceLocation: SourceLocation = #_sourceLocation) {
  let hidden: [ClosedRange<UInt32>] = [
    0...9, 0xB...0x1F, 0x7F...0x9F, 0x200B...0x200F, 0x2028...0x202E, 0x2060...0x206F, 0xFEFF...0xFEFF,
  ]
  let bad = text.unicodeScalars.first { scalar in hidden.contains { $0.contains(scalar.value) } }
  #expect(
    bad == nil, "U+\(String(bad?.value ?? 0, radix: 16)) in \(text.debugDescription.prefix(300))",
    sourceLocation: sourceLocation)
}
