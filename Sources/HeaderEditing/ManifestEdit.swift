import Bytes
import Checkpoints
import JSON
import Tensors
import Writing

/// The manifest that vouches for a file about to be edited, and what it has to say afterwards.
struct ManifestEdit {
  /// The manifest's name.
  let name: String
  /// The manifest's entry of the file.
  let entry: Manifest.File
  /// Whether the list for `xxhsum` lies beside it.
  let hasChecksums: Bool
  private let json: JSONValue
  private let file: String

  /// - Parameters:
  ///   - path: of the file that is edited.
  ///   - isGGUF: a GGUF model's manifest has a name of its own.
  /// - Returns: nil when no manifest lists the file.
  /// - Throws: `malformed` for a manifest that is damaged.
  init?(for path: String, isGGUF: Bool) throws(Failure) {
    let own = FileName.last(of: path)
    let parent = String(path.dropLast(own.count))
    let directory = try InputDirectory(path: parent.isEmpty ? "." : parent)
    let name = isGGUF ? GGUFSidecar.name(for: own) : Manifest.fileName
    guard directory.contains(name) else { return nil }
    let input = try directory.open(name)
    guard let entry = try Manifest(input).files.first(where: { TensorName($0.name) == TensorName(own) }) else {
      return nil
    }
    json = try JSONValue(parsing: input.contents(limit: Manifest.sizeLimit), file: name)
    self.name = name
    self.entry = entry
    file = own
    hasChecksums = !isGGUF && directory.contains(Manifest.checksumsName)
  }

  /// The files that have to be written anew, the manifest first.
  var names: [String] { [name] + (hasChecksums ? [Manifest.checksumsName] : []) }

  /// Writes them.
  ///
  /// - Parameters:
  ///   - digests: of the edited file.
  ///   - shift: bytes by which its data has moved.
  func write(_ digests: FileDigests, shift: Int, into files: StagedDirectory.Files) throws(Failure) {
    let manifest = Self.text(of: edited(digests, shift: shift))
    var output = HashedFile(try files.create(name), sha256: false)
    try output.append(manifest)
    let own = try output.finish()
    if hasChecksums { try writeChecksums(edited(digests, shift: shift), own.xxh128, into: files) }
  }

  /// Writes the list for `xxhsum` as the manifest has it.
  func writeChecksums(into files: StagedDirectory.Files) throws(Failure) {
    var hasher = XXH3Hasher()
    let text = Self.text(of: json)
    hasher.update(text.span.rawBytes)
    try writeChecksums(json, hasher.digest128, into: files)
  }

  private func writeChecksums(
    _ manifest: JSONValue, _ own: XXH128Digest, into files: StagedDirectory.Files
  ) throws(Failure) {
    var lines: [(name: String, digest: String)] = [(name, own.hexadecimal)]
    for (name, entry) in manifest["files"]?.object?.members ?? [] {
      lines.append((name, entry["xxh128"]?.string ?? ""))
    }
    lines.sort { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
    let output = try files.create(Manifest.checksumsName)
    try output.append(Array(lines.map { "\($0.digest)  \($0.name)\n" }.joined().utf8))
    try output.finish()
  }

  private func edited(_ digests: FileDigests, shift: Int) -> JSONValue {
    var result = json
    result["files"]?[file] = ["size": .number(digests.size), "xxh128": .string(digests.xxh128.hexadecimal)]
    if shift != 0, let tensors = json["tensors"]?.object {
      result["tensors"] = .object(
        JSONObject(
          distinct: tensors.members.map { name, value in
            guard value["file"]?.string.map({ TensorName($0) }) == TensorName(file), let offset = value["offset"]?.int
            else { return (name, value) }
            var value = value
            value["offset"] = .number(offset + shift)
            return (name, value)
          }))
    }
    if let sha256 = digests.sha256, let resources = json["resources"]?.array {
      result["resources"] = .array(
        resources.map { resource in
          guard resource["name"]?.string.map({ TensorName($0) }) == TensorName(file) else { return resource }
          var resource = resource
          resource["digest"] = .string(sha256)
          return resource
        })
    }
    return result
  }

  /// In the layout of `ManifestWriter`: a line for every file and tensor.
  private static func text(of manifest: JSONValue) -> [UInt8] {
    var writer = JSONWriter()
    writer.beginObject(.indented)
    for (key, value) in manifest.object?.members ?? [] {
      writer.key(key)
      switch value {
      case .object(let object):
        writer.beginObject(.indented)
        for (name, entry) in object.members { writer.member(name, entry, .line) }
        writer.end(breaks: true)
      case .array(let array):
        writer.beginArray(.indented)
        for entry in array { writer.value(entry, .line) }
        writer.end(breaks: true)
      default: writer.value(value)
      }
    }
    writer.end(breaks: true)
    return writer.bytes + [UInt8(ascii: "\n")]
  }
}
