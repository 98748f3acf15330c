import Bytes
import GGUF
import JSON
import Tensors

/// GGUF files being made from another model.
struct GGUFRun {
  let plan: GGUFPlan
  /// "quantize", "convert": for the manifest.
  let operation: String
  /// "quantizing": for the progress display.
  let activity: String
  /// The options that shaped the result, for the manifest.
  let recorded: [(key: String, value: JSONValue)]
  let warnings: [Warning]
  /// What the model was made from; nil for an adapter.
  var source: String?
  let options: RunOptions
  /// Files being read, which may not be replaced.
  let identities: [FileIdentity]
  /// Asked whether they are still what they were, when everything is written.
  let checkUnchanged: () throws(Failure) -> Void
  /// Files beside the model's that are read while it runs.
  var otherInputs: [InputFile] = []
  /// What was quantized, for a run that does.
  var summary: QuantizationSummary?
  /// Whether files of the same name in another number of parts are replaced too.
  var replacesOthers = true
  /// What adapters did, asked for when the weights have been written.
  var changes: (@Sendable () -> [MergeChange])?

  /// - Parameter announce: is given each warning before any data is read.
  /// - Throws: what reading, planning or writing throws; nothing is left behind then.
  func run(into path: String, announce: (Warning) -> Void) throws(Failure) -> RunReport {
    let manifest = GGUFSidecar.name(for: plan.layout.files[0].name)
    let names = plan.layout.files.map(\.name) + [manifest]
    if options.isDryRun {
      for warning in warnings { announce(warning) }
      return report(path, names, seconds: 0)
    }
    let place = GGUFPlace(path: path, names: plan.layout.files.map(\.name))
    var oldParts: [String] = []
    if options.force {
      try place.checkReplaced()
      if replacesOthers { oldParts = try place.otherParts() }
    }
    let staged = try StagedFiles(
      path: path, names: names, replacing: options.force, orphans: place.isOrphan(manifest) ? [manifest] : [],
      inputs: identities)
    try checkSpace(staged.files.freeBytes(), path)
    // Not earlier: a run that cannot begin has one thing to say.
    for warning in warnings { announce(warning) }
    let progress = Progress(activity, total: plan.inputByteCount, style: options.progress)
    defer { progress.finish() }
    let writer = GGUFWriter(plan, files: staged.files, sha256: options.sha256)
    let plan = plan
    let stream = OrderedStream<GGUFCursor, GGUFBuffer>(jobs: options.jobs) { GGUFBuffer() }
    try stream.run(GGUFCursor(plan.tensors)) { piece, buffer throws(Failure) in
      try buffer.fill(piece, of: plan)
    } drain: { piece, buffer throws(Failure) in
      try writer.write(piece, buffer)
      progress.advance(by: plan.inputByteCount(of: piece.elements, piece.tensor))
    }
    try writer.finish()
    let origin = try source.map { (source) throws(Failure) in try SourceRecord(path: source).members } ?? []
    try ManifestWriter(
      tensors: plan, operation: operation, options: origin + recorded, files: writer.fileDigests,
      outputDigests: writer.tensorDigests, sources: [], storedDigests: []
    ).writeManifest(manifest, into: staged.files, sha256: options.sha256)
    try checkUnchanged()
    try Interruption.check()
    try staged.commit()
    var report = report(path, names, seconds: progress.seconds)
    for warning in place.remove(oldParts, inputs: identities) {
      announce(warning)
      report.warnings.append(warning)
    }
    return report
  }

  private func report(_ path: String, _ names: [String], seconds: Double) -> RunReport {
    RunReport(
      // Of parts, the one that llama.cpp is given.
      output: String(path.dropLast(fileName(of: path).count)) + plan.layout.files[0].name, files: names,
      tensors: plan.tensors.count, parameters: plan.parameterCount,
      bytesIn: otherInputs.reduce(plan.inputByteCount) { $0.addingSaturated($1.size) }, bytesOut: plan.layout.byteCount,
      seconds: seconds, warnings: warnings, changes: changes?(), summary: summary)
  }

  private func checkSpace(_ free: Int?, _ path: String) throws(Failure) {
    // The manifest takes some 200 bytes for each tensor, and the digests of its pieces.
    var needed = plan.layout.byteCount.addingSaturated(1 << 16)
    for tensor in plan.tensors {
      needed = needed.addingSaturated(400 + 16 * (PieceLayout(byteCount: tensor.byteCount)?.count ?? 0))
    }
    if let free, free < needed {
      throw Failure(
        .io, "needs \(byteText(needed)) (\(needed) bytes), but only \(byteText(free)) (\(free) bytes) are free there",
        file: path)
    }
  }
}
