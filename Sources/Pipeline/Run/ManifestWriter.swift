import Bytes
import JSON
import Tensors

/// Where the tensors of an output are, for its manifest.
protocol ManifestTensors {
  /// Every tensor that was written, in the order of the output.
  func forEach(
    _ body: (_ name: TensorName, _ file: String, _ offset: Int, _ byteCount: Int) throws(Failure) -> Void
  ) throws(Failure)
}

/// Writes `nibble-manifest.json` and `checksums.xxh128`, piece by piece: a model may have hundreds of
/// thousands of tensors.
struct ManifestWriter {
  static let name = "nibble-manifest.json"
  static let checksumsName = ChecksumList.name

  let tensors: any ManifestTensors
  let operation: String
  let options: [(key: String, value: JSONValue)]
  let files: [FileDigests]
  /// In the order of the output.
  let outputDigests: [TensorDigests]
  /// Of what the tensors were made from; nil for what was not read.
  let sources: [TensorInfo]
  let storedDigests: [XXH3Digest?]

  /// Both files of a directory.
  func write(into directory: StagedDirectory.Files, sha256: Bool) throws(Failure) {
    let own = try writeManifest(Self.name, into: directory, sha256: sha256)
    let checksums = try directory.create(Self.checksumsName)
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
    var out = BufferedText()
    out.text = "{\n  \"format\": \"nibble-manifest\",\n  \"version\": 1,\n"
    out.text +=
      "  \"generator\": \"nibble \(nibbleVersion)\",\n  \"operation\": \(operation.jsonText),\n  \"options\": {"
    for (index, option) in options.enumerated() {
      out.text += "\(index == 0 ? "" : ",")\n    \(option.key.jsonText): \(option.value.text(.line))"
    }
    out.text += "\n  },\n  \"files\": {"
    let sorted = files.sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
    for (index, entry) in sorted.enumerated() {
      out.text +=
        "\(index == 0 ? "" : ",")\n    \(entry.name.jsonText): {\"size\": \(entry.size), \"xxh128\": \"\(entry.xxh128)\"}"
    }
    out.text += "\n  },\n  \"tensors\": {"
    try out.flush(to: &file)
    var position = 0
    // swift-format-ignore
    try tensors.forEach { (name, shard, offset, byteCount) throws(Failure) in
      let digests = outputDigests[position]
      out.text += "\(position == 0 ? "" : ",")\n    \(name.string.jsonText): {\"file\": \(shard.jsonText), "
      out.text += "\"offset\": \(offset), \"bytes\": \(byteCount), \"xxh3\": \"\(digests.whole)\""
      if let pieces = digests.pieces {
        out.text += ", \"pieces\": {\"bytes\": \(pieces.layout.pieceByteCount), "
        out.text += "\"xxh3\": \"\(pieces.hexadecimal)\"}"
      }
      out.text += "}"
      position += 1
      try out.flush(to: &file, above: 1 << 16)
    }
    out.text += "\n  },\n  \"source\": {"
    var isFirst = true
    for (tensor, digest) in zip(sources, storedDigests) {
      guard let digest else { continue }
      out.text += "\(isFirst ? "" : ",")\n    \(tensor.name.string.jsonText): \"\(digest)\""
      isFirst = false
      try out.flush(to: &file, above: 1 << 16)
    }
    out.text += "\n  }"
    appendResources(sorted, to: &out)
    out.text += "\n}\n"
    try out.flush(to: &file)
  }

  /// SHA-256 in the shape of the OpenSSF model-signing manifest: what a signing tool needs.
  private func appendResources(_ files: [FileDigests], to out: inout BufferedText) {
    guard files.contains(where: { $0.sha256 != nil }) else { return }
    out.text += ",\n  \"resources\": ["
    for (index, file) in files.enumerated() {
      out.text += "\(index == 0 ? "" : ",")\n    {\"name\": \(file.name.jsonText), \"algorithm\": \"sha256\", "
      out.text += "\"digest\": \"\(file.sha256 ?? "")\"}"
    }
    out.text += "\n  ]"
  }
}

/// Text on its way to a file, held back until it is worth a write.
struct BufferedText {
  var text = ""

  mutating func flush(to file: inout HashedFile, above limit: Int = 0) throws(Failure) {
    guard text.utf8.count > limit else { return }
    try file.append(text)
    text.removeAll(keepingCapacity: true)
  }
}
