import Adapters
import Bytes
import JSON
import Safetensors
import Tensors

/// Which adapters are in a merged model, told in its manifest: merging one twice would double its effect.
struct MergeProvenance {
  /// Those that were in the base, then those of this run.
  private let entries: [JSONValue]

  /// - Throws: `malformed` when an adapter is given twice or is in the base already.
  init(_ model: ModelSource, _ adapters: [Adapter], _ settings: MergeSettings) throws(Failure) {
    var entries = try Self.earlier(model)
    let known = Set(entries.compactMap { $0["xxh128"]?.string })
    var digests: [String: String] = [:]
    for (index, adapter) in adapters.enumerated() {
      let digest = try adapter.digest().hexadecimal
      if known.contains(digest) {
        throw Failure(
          .malformed, "is merged into '\(model.checkpoint.path)' already, as its \(ManifestWriter.name) says",
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

  /// What the base's own manifest tells; nothing when it has none or it cannot be read.
  private static func earlier(_ model: ModelSource) throws(Failure) -> [JSONValue] {
    let place =
      if let sidecar = try GGUFSidecar(path: model.checkpoint.path) { (sidecar.directory, sidecar.name) } else {
        model.checkpoint.directory.map { ($0, ManifestWriter.name) }
      }
    guard let (directory, name) = place, directory.contains(name) else { return [] }
    let bytes = try directory.open(name).contents(limit: Manifest.sizeLimit)
    var reader = JSONReader(bytes)
    do throws(Failure) {
      try reader.enterObject()
      while let (key, _) = try reader.nextMember() {
        // The lists of files and tensors, which may be long, come after it.
        if key == "options" { return try reader.value()["adapters"]?.array ?? [] }
        try reader.skipValue()
      }
    } catch {
      // What the manifest is worth is for `verify` to say.
      return []
    }
    return []
  }
}
