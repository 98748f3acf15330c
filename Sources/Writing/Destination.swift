package import Bytes
package import Checkpoints
package import JSON
import Tensors

/// The place that a run's files go to: how they are made visible together, and which others belong to them.
package protocol Destination: Sendable {
  /// Names of all files that a run leaves, in the order in which they are reported.
  func fileNames(_ plan: WritePlan) -> [String]

  /// The path that a loader is given.
  func reportedPath(_ path: String, _ plan: WritePlan) -> String

  /// Bytes of the files beside the containers, without the manifest's entries of tensors.
  func otherByteCount() throws(Failure) -> Int

  /// Claims the place. Nothing is visible there before `commit`.
  ///
  /// - Throws: `cannotCreate` when something is there that may not be replaced, or is read; `locked` when another run is
  ///   writing there.
  func stage(
    _ path: String, _ plan: WritePlan, replacing: Bool, inputs: [FileIdentity]
  ) throws(Failure) -> any Stage

  /// Writes the files beside the containers, but for the manifest.
  func writeOthers(_ plan: WritePlan, into files: StagedDirectory.Files, sha256: Bool) throws(Failure) -> [FileDigests]

  func write(_ manifest: ManifestWriter, _ plan: WritePlan, into files: StagedDirectory.Files, sha256: Bool)
    throws(Failure)
}

/// A place that has been claimed; given up unless it is committed.
package protocol Stage: AnyObject {
  var files: StagedDirectory.Files { get }

  /// Makes everything visible, once.
  ///
  /// - Returns: what is to be said of files that should have gone and did not.
  func commit() throws(Failure) -> [Warning]
}

/// A directory that transformers or PEFT loads.
package struct DirectoryDestination: Destination {
  /// The new `config.json`; nil when the source has none, or its own goes along.
  package var config: JSONValue?
  /// Contents of files that are made from no other file, by name.
  package var made: [(name: String, text: String)] = []
  package var sideFiles: SideFiles?

  package init(config: JSONValue? = nil, made: [(name: String, text: String)] = [], sideFiles: SideFiles? = nil) {
    self.config = config
    self.made = made
    self.sideFiles = sideFiles
  }

  package static let indexName = "model.safetensors.index.json"

  package func fileNames(_ plan: WritePlan) -> [String] {
    let files = plan.container.files.map(\.name)
    let names =
      files + (files.count > 1 ? [Self.indexName] : []) + (config == nil ? [] : [StoredModel.configName])
      + made.map(\.name) + (sideFiles?.names ?? []) + [Manifest.fileName, Manifest.checksumsName]
    return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
  }

  package func reportedPath(_ path: String, _ plan: WritePlan) -> String { path }

  package func otherByteCount() throws(Failure) -> Int {
    var total = 0
    for (_, text) in made { total = total.addingSaturated(text.utf8.count) }
    guard let sideFiles else { return total }
    for name in sideFiles.names { total = total.addingSaturated(try sideFiles.size(name)) }
    return total
  }

  package func stage(
    _ path: String, _ plan: WritePlan, replacing: Bool, inputs: [FileIdentity]
  ) throws(Failure) -> any Stage {
    try Self.claim(path, replacing: replacing, inputs: inputs)
  }

  /// The same, for a run whose plan is not made yet.
  package static func claim(_ path: String, replacing: Bool, inputs: [FileIdentity]) throws(Failure) -> any Stage {
    DirectoryStage(try StagedDirectory(path: path, replacing: replacing, inputs: inputs))
  }

  private final class DirectoryStage: Stage {
    private var directory: StagedDirectory?
    let files: StagedDirectory.Files

    init(_ directory: consuming StagedDirectory) {
      files = directory.files
      self.directory = consume directory
    }

    func commit() throws(Failure) -> [Warning] {
      guard let directory = directory.take() else { throw Failure(.internal, "committed twice") }
      return [try directory.commit()].compactMap(\.self)
    }
  }

  // MARK: - The files

  package func writeOthers(
    _ plan: WritePlan, into files: StagedDirectory.Files, sha256: Bool
  ) throws(Failure) -> [FileDigests] {
    var digests: [FileDigests] = []
    if plan.container.files.count > 1 { digests.append(try writeIndex(plan, into: files, sha256: sha256)) }
    if let config {
      digests.append(
        try write(StoredModel.configName, config.bytes(.indented) + [UInt8(ascii: "\n")], into: files, sha256: sha256))
    }
    for (name, text) in made { digests.append(try write(name, Array(text.utf8), into: files, sha256: sha256)) }
    if let sideFiles {
      for name in sideFiles.names { digests.append(try copy(name, of: sideFiles, into: files, sha256: sha256)) }
    }
    return digests
  }

  package func write(
    _ manifest: ManifestWriter, _ plan: WritePlan, into files: StagedDirectory.Files, sha256: Bool
  ) throws(Failure) {
    try manifest.write(into: files, sha256: sha256)
  }

  /// In file order: sorting names would take memory that grows with the model.
  private func writeIndex(
    _ plan: WritePlan, into files: StagedDirectory.Files, sha256: Bool
  ) throws(Failure) -> FileDigests {
    var file = HashedFile(try files.create(Self.indexName), sha256: sha256)
    var json = JSONWriter()
    json.beginObject(.indented)
    json.member("metadata", ["total_size": .number(try plan.dataByteCount())])
    json.key("weight_map")
    json.beginObject(.indented)
    for shard in plan.container.files {
      for step in plan.steps[shard.steps] {
        for output in try plan.outputs(of: step) {
          json.member(output.name.string, shard.name)
        }
        try json.flush(to: &file, above: 1 << 16)
      }
    }
    json.end(breaks: true)
    json.end()
    try json.finish(to: &file)
    return try file.finish()
  }

  private func write(
    _ name: String, _ bytes: [UInt8], into files: StagedDirectory.Files, sha256: Bool
  ) throws(Failure) -> FileDigests {
    var file = HashedFile(try files.create(name), sha256: sha256)
    try file.append(bytes)
    return try file.finish()
  }

  private func copy(
    _ name: String, of sideFiles: SideFiles, into files: StagedDirectory.Files, sha256: Bool
  ) throws(Failure) -> FileDigests {
    var file = HashedFile(try files.create(path: name), sha256: sha256)
    if let contents = sideFiles.contents(name) {
      try file.append(contents)
      return try file.finish()
    }
    let source = try sideFiles.open(name)
    var position = 0
    while position < source.size {
      try Interruption.check()
      let end = min(position + (1 << 20), source.size)
      try file.append(try source.bytes(in: position..<end))
      position = end
    }
    try source.checkUnchanged()
    return try file.finish()
  }
}
