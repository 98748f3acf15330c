import Adapters
import Bytes
import Checkpoints
import JSON

/// Which adapters are in a merged model, told in its manifest: merging one twice would double its effect.
package struct MergeProvenance {
  /// Those that were in the base, then those of this run.
  private let entries: [JSONValue]

  /// - Throws: `malformed` when an adapter is given twice or is in the base already.
  init(_ model: StoredModel, _ adapters: [Adapter], _ settings: MergeSettings) throws(Failure) {
    var entries = try SourceRecord(path: model.checkpoint.path).options?["adapters"]?.array ?? []
    let known = Set(entries.compactMap { $0["xxh128"]?.string })
    var digests: [String: String] = [:]
    for (index, adapter) in adapters.enumerated() {
      let digest = try adapter.digest().hexadecimal
      if known.contains(digest) {
        throw Failure(
          .malformed, "is merged into '\(model.checkpoint.path)' already, as its \(Manifest.fileName) says",
          file: adapter.path)
      }
      if let other = digests.updateValue(adapter.path, forKey: digest) {
        throw Failure(
          .malformed, "is the same adapter as '\(other)'; give it once, with --weight 2 if that is meant",
          file: adapter.path)
      }
      let weight = index < settings.weights.count ? settings.weights[index] : 1
      entries.append([
        "name": .string(adapter.name), "xxh128": .string(digest),
        "weight": JSONNumber(weight).map(JSONValue.number) ?? .null,
      ])
    }
    self.entries = entries
  }

  var json: JSONValue { .array(entries) }
}
