import JSON
import Testing

/// Runs `diff` and takes its answer apart.
enum Diff {
  /// The answer of `--json`, whose exit code must fit it.
  static func compare(_ words: String...) throws -> JSONValue {
    let run = try Tool.run(["diff", "--json"] + words)
    let json = try #require(parse(run.output), "\(run.error)")
    #expect(json.object.map { Array($0.keys) } == ["equal", "onlyInA", "onlyInB", "changed", "sameValues", "warnings"])
    #expect(run.status == (json["equal"]?.bool == true ? 0 : 1), "\(run.error)")
    for change in json["changed"]?.array ?? [] {
      let keys = change.object.map { Array($0.keys) }
      #expect(keys == ["name", "dtype", "shape", "elements", "differing", "maxAbs", "relative"])
    }
    return json
  }

  static func names(_ value: JSONValue?) -> [String] { (value?.array ?? []).compactMap(\.string) }

  /// The one change.
  static func change(_ a: String, _ b: String) throws -> JSONValue {
    let json = try compare(a, b)
    let changed = try #require(json["changed"]?.array)
    #expect(changed.count == 1 && names(json["onlyInA"]).isEmpty && names(json["onlyInB"]).isEmpty)
    return try #require(changed.first)
  }

  static func pair(_ value: JSONValue?) -> [String] {
    (value?.array ?? []).map { $0.string ?? "[\(($0.array ?? []).map { "\($0.int ?? -1)" }.joined(separator: ", "))]" }
  }
}
