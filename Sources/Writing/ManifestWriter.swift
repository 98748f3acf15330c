package import Bytes
import Checkpoints
package import JSON
package import Tensors

/// Where the tensors of an output are, for its manifest.
package protocol ManifestTensors {
  /// Every tensor that was written, in the order of the output.
  func forEach(
    _ body: (_ name: TensorName, _ file: String, _ offset: Int, _ byteCount: Int) throws(Failure) -> Void
  ) throws(Failure)
}

/// Writes `nibble-manifest.json` and `checksums.xxh128`, piece by piece: a model may have hundreds of
/// thousands of tensors.
package struct ManifestWriter {
  package let tensors: any ManifestTensors
  package let operation: String
  package let options: [(key: String, value: JSONValue)]
  package let files: [FileDigests]
  /// The digests of the output's tensors, in the order of the output.
  let outputDigests: [TensorDigests]
  /// The tensors that the output was made from, and their digests, nil for those that were not read.
  package let sources: [TensorInfo]
  let storedDigests: [XXH3Digest?]

  /// Writes both files of a directory: the manifest and the list for `xxhsum`.
  package func write(into directory: StagedDirectory.Files, sha256: Bool) throws(Failure) {
    let own = try writeManifest(Manifest.fileName, into: directory, sha256: sha256)
    let checksums = try directory.create(Manifest.checksumsName)
    for file in (files + [own]).sorted(by: { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }) {
      try checksums.append(Array("\(file.xxh128.hexadecimal)  \(file.name)\n".utf8))
    }
    try checksums.finish()
  }

  /// The manifest alone, under a name of its own.
  @discardableResult
  func writeManifest(
    _ name: String, into directory: StagedDirectory.Files, sha256: Bool
  ) throws(Failure) -> FileDigests {
    var manifest = HashedFile(try directory.create(name), sha256: sha256)
    try writeManifest(&manifest)
    return try manifest.finish()
  }

  private func writeManifest(_ file: inout HashedFile) throws(Failure) {
    var json = JSONWriter()
    json.beginObject(.indented)
    json.member("format", "nibble-manifest")
    json.member("version", 1)
    json.member("generator", "nibble \(nibbleVersion)")
    json.member("operation", operation)
    json.key("options")
    json.beginObject(.indented)
    for option in options { json.member(option.key, option.value, .line) }
    json.end(breaks: true)
    json.key("files")
    json.beginObject(.indented)
    let sorted = files.sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
    for entry in sorted {
      json.key(entry.name)
      json.beginObject(.line)
      json.member("size", entry.size)
      json.member("xxh128", entry.xxh128.hexadecimal)
      json.end()
    }
    json.end(breaks: true)
    json.key("tensors")
    json.beginObject(.indented)
    var position = 0
    // swift-format-ignore
    try tensors.forEach { (name, shard, offset, byteCount) throws(Failure) in
      let digests = outputDigests[position]
      json.key(name.string)
      json.beginObject(.line)
      json.member("file", shard)
      json.member("offset", offset)
      json.member("bytes", byteCount)
      json.member("xxh3", digests.whole.hexadecimal)
      if let pieces = digests.pieces {
        json.key("pieces")
        json.beginObject(.line)
        json.member("bytes", pieces.layout.pieceByteCount)
        json.member("xxh3", pieces.hexadecimal)
        json.end()
      }
      json.end()
      position += 1
      try json.flush(to: &file, above: 1 << 16)
    }
    json.end(breaks: true)
    json.key("source")
    json.beginObject(.indented)
    for (tensor, digest) in zip(sources, storedDigests) {
      guard let digest else { continue }
      json.member(tensor.name.string, digest.hexadecimal)
      try json.flush(to: &file, above: 1 << 16)
    }
    json.end(breaks: true)
    writeResources(sorted, to: &json)
    json.end()
    try json.finish(to: &file)
  }

  /// SHA-256 in the shape of the OpenSSF model-signing manifest: what a signing tool needs.
  private func writeResources(_ files: [FileDigests], to json: inout JSONWriter) {
    guard files.contains(where: { $0.sha256 != nil }) else { return }
    json.key("resources")
    json.beginArray(.indented)
    for file in files {
      json.beginObject(.line)
      json.member("name", file.name)
      json.member("algorithm", "sha256")
      json.member("digest", file.sha256 ?? "")
      json.end()
    }
    json.end()
  }
}

extension JSONWriter {
  /// Text is held back until it is worth a write.
  package mutating func flush(to file: inout HashedFile, above limit: Int = 0) throws(Failure) {
    guard bytes.count > limit else { return }
    try file.append(bytes)
    clear()
  }

  /// The rest, and the line break that ends a file.
  package mutating func finish(to file: inout HashedFile) throws(Failure) {
    try flush(to: &file)
    try file.append("\n")
  }
}
