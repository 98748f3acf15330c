import Bytes
import JSON
import Safetensors
import Tensors

/// One checkpoint directory being made from another: the plan of its weights, its configuration, the
/// files that go along.
struct CheckpointRun {
  let model: ModelSource
  let plan: OutputPlan
  /// The new `config.json`; nil when the source has none.
  let config: JSONValue?
  /// "quantize", "convert": for the manifest.
  let operation: String
  /// "quantizing": for the progress display.
  let activity: String
  /// The options that shaped the result, for the manifest.
  let recorded: [(key: String, value: JSONValue)]
  let warnings: [Warning]
  let options: RunOptions
  let sideFiles: SideFiles
  /// Of directories beside the model's that the output may not lie in.
  var identities: [FileIdentity] = []
  /// Files beside the model's that are read while it runs.
  var otherInputs: [InputFile] = []
  /// Logical ones, where the plan's tensors are but their parts.
  var parameters: Int?
  /// What was quantized, for a run that does.
  var summary: QuantizationSummary?
  /// What adapters did, asked for when the weights have been written.
  var changes: (@Sendable () -> [MergeChange])?

  static let indexName = "model.safetensors.index.json"

  /// - Parameter announce: is given each warning before any data is read.
  /// - Throws: what reading, planning or writing throws; nothing is left behind then.
  func run(into path: String, announce: (Warning) -> Void) throws(Failure) -> RunReport {
    let shardBytes = try shardByteCount()
    if options.isDryRun {
      for warning in warnings { announce(warning) }
      return try report(path, files: plannedFiles, bytesOut: shardBytes, seconds: 0)
    }
    let directory = try StagedDirectory(path: path, replacing: options.force, inputs: model.identities + identities)
    try checkSpace(needed: shardBytes, directory.files.freeBytes(), path)
    // Not earlier: a run that cannot begin has one thing to say.
    for warning in warnings { announce(warning) }
    let progress = Progress(activity, total: plan.inputByteCount, style: options.progress)
    defer { progress.finish() }
    let writer = ShardWriter(plan, files: directory.files, sha256: options.sha256)
    try OrderedRun(plan: plan, jobs: options.jobs, progress: progress).run(into: writer)
    try writer.finish()
    var files = writer.fileDigests
    if plan.shards.count > 1 { files.append(try writeIndex(into: directory.files)) }
    if let config {
      files.append(try write(ModelSource.configName, config, into: directory.files))
    }
    for name in sideFiles.names { files.append(try copy(name, into: directory.files)) }
    try ManifestWriter(
      tensors: plan, operation: operation, options: SourceRecord(path: model.checkpoint.path).members + recorded,
      files: files, outputDigests: writer.outputDigests,
      sources: plan.stored.tensors, storedDigests: writer.storedDigests
    ).write(into: directory.files, sha256: options.sha256)
    try model.checkpoint.checkUnchanged()
    for input in otherInputs { try input.checkUnchanged() }
    try Interruption.check()
    let leftover = try directory.commit()
    let names = files.map(\.name) + [ManifestWriter.name, ManifestWriter.checksumsName]
    var report = try report(path, files: names, bytesOut: shardBytes, seconds: progress.seconds)
    if let leftover {
      announce(leftover)
      report.warnings.append(leftover)
    }
    return report
  }

  private func report(
    _ path: String, files: [String], bytesOut: Int, seconds: Double
  ) throws(Failure) -> RunReport {
    var tensors = 0
    for step in plan.steps { tensors += try plan.outputs(of: step).count }
    return RunReport(
      output: path, files: files.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }, tensors: tensors,
      parameters: parameters ?? parameterCount, bytesIn: inputByteCount, bytesOut: bytesOut, seconds: seconds,
      warnings: warnings, changes: changes?(), summary: summary)
  }

  /// Of the output: adapters may bring more.
  private var parameterCount: Int {
    plan.steps.reduce(0) { sum, step in
      let (result, overflow) = sum.addingReportingOverflow(plan.info(of: step).elementCount)
      return overflow ? Int.max : result
    }
  }

  private var inputByteCount: Int { otherInputs.reduce(plan.inputByteCount) { $0.addingSaturated($1.size) } }

  private var plannedFiles: [String] {
    plan.shards.map(\.name) + (plan.shards.count > 1 ? [Self.indexName] : [])
      + (config == nil ? [] : [ModelSource.configName]) + sideFiles.names
      + [ManifestWriter.name, ManifestWriter.checksumsName]
  }

  // MARK: - Room on the disk

  private func shardByteCount() throws(Failure) -> Int {
    var total = plan.dataByteCount
    for shard in plan.shards { total += try plan.header(of: shard).count }
    return total
  }

  private func checkSpace(needed shards: Int, _ free: Int?, _ path: String) throws(Failure) {
    // Index and manifest take some 200 bytes for each tensor.
    var needed = shards + (1 << 16) + (try plan.pieceDigestByteCount())
    for step in plan.steps { needed += 400 * (step.action == .copy ? 1 : 6) + 2 * plan.info(of: step).name.byteCount }
    for name in sideFiles.names { needed += try sideFiles.size(name) }
    if let free, free < needed {
      throw Failure(
        .io, "needs \(byteText(needed)) (\(needed) bytes), but only \(byteText(free)) (\(free) bytes) are free there",
        file: path)
    }
  }

  // MARK: - The other files

  /// In file order: sorting names would take memory that grows with the model.
  private func writeIndex(into files: StagedDirectory.Files) throws(Failure) -> FileDigests {
    var file = HashedFile(try files.create(Self.indexName), sha256: options.sha256)
    var json = JSONWriter()
    json.beginObject(.indented)
    json.member("metadata", ["total_size": .number(plan.dataByteCount)])
    json.key("weight_map")
    json.beginObject(.indented)
    for shard in plan.shards {
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
    _ name: String, _ json: JSONValue, into files: StagedDirectory.Files
  ) throws(Failure) -> FileDigests {
    var file = HashedFile(try files.create(name), sha256: options.sha256)
    try file.append(json.bytes(.indented) + [UInt8(ascii: "\n")])
    return try file.finish()
  }

  private func copy(_ name: String, into files: StagedDirectory.Files) throws(Failure) -> FileDigests {
    var file = HashedFile(try files.create(path: name), sha256: options.sha256)
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
