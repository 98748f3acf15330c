import Foundation
import JSON
import TestSupport
import Testing

/// A tiny base and an adapter in a directory of their own, and the tool run on them.
protocol MergeTesting {
  var directory: TemporaryDirectory { get }
  var base: String { get }
}

extension MergeTesting {
  func refuse(
    _ status: Int32, _ message: String, tensor: String? = nil, base: String? = nil, _ adapters: String...,
    options: [String] = [], sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    try Refusal(status: status, message: message, tensor: tensor).checkMerge(
      base ?? self.base, adapters, in: directory, options: options, sourceLocation: sourceLocation)
  }

  @discardableResult
  func merge(
    _ base: String? = nil, _ adapters: String..., to name: String = "out", options: [String] = [],
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws -> (run: Tool.Result, json: JSONValue?) {
    let words = ["merge", base ?? self.base] + adapters + ["-o", directory.path(name), "--json"] + options
    let run = try Tool.run(words, sourceLocation: sourceLocation)
    #expect(run.status == 0, "\(run.error)", sourceLocation: sourceLocation)
    if !options.contains("--dry-run") {
      let verified = try Tool.run("verify", directory.path(name))
      #expect(verified.status == 0, "\(verified.output)", sourceLocation: sourceLocation)
    }
    return (run, parse(run.output, sourceLocation))
  }
}
