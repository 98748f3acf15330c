package import Bytes
package import Checkpoints
import Console
package import JSON
import Tensors

/// The files that a run reads, which it may not replace and which may not change under it.
package struct RunInputs {
  /// Identities of files and directories that the output may not replace nor lie in.
  package var identities: [FileIdentity]
  /// Files beside the model's whose bytes are read too.
  package var others: [InputFile] = []
  /// Called when everything is written.
  package var checkUnchanged: () throws(Failure) -> Void

  package init(
    identities: [FileIdentity], others: [InputFile] = [], checkUnchanged: @escaping () throws(Failure) -> Void
  ) {
    self.identities = identities
    self.others = others
    self.checkUnchanged = checkUnchanged
  }

  /// One more file whose values decide what is written.
  package mutating func add(_ file: InputFile) {
    identities.append(file.identity)
    let check = checkUnchanged
    checkUnchanged = { () throws(Failure) in
      try check()
      try file.checkUnchanged()
    }
  }

  package init(_ model: StoredModel) {
    self.init(identities: model.identities, checkUnchanged: model.checkpoint.checkUnchanged)
  }
}

/// One output being made: planned, claimed, written and committed.
package struct WriteRun {
  package let plan: WritePlan
  package let destination: any Destination
  /// The verb in the manifest, such as "quantize" or "convert".
  package let operation: String
  /// The word in the progress display, such as "quantizing".
  package let activity: String
  /// The number of logical parameters, where the plan's tensors are but their parts.
  package var source: String?
  /// The options that shaped the result, for the manifest.
  package let recorded: [(key: String, value: JSONValue)]
  package var warnings: [Warning]
  package var options: RunOptions
  package let inputs: RunInputs
  /// Logical ones, where the plan's tensors are but their parts.
  package var parameters: Int?
  /// The summary of the quantization; nil for a run that does not quantize.
  package var summary: QuantizationSummary?
  /// The adapters' changes, asked for when the weights have been written.
  package var changes: (@Sendable () -> [MergeChange])?
  /// Pieces that are made at the same time; nil for as many as there are workers.
  package var jobs: Int?
  /// Bytes that are to be written to the same file system afterwards.
  package var otherByteCount = 0

  package init(
    plan: WritePlan, destination: any Destination, operation: String, activity: String, source: String? = nil,
    recorded: [(key: String, value: JSONValue)], warnings: [Warning], options: RunOptions, inputs: RunInputs,
    parameters: Int? = nil, summary: QuantizationSummary? = nil, changes: (@Sendable () -> [MergeChange])? = nil,
    jobs: Int? = nil
  ) {
    self.plan = plan
    self.destination = destination
    self.operation = operation
    self.activity = activity
    self.source = source
    self.recorded = recorded
    self.warnings = warnings
    self.options = options
    self.inputs = inputs
    self.parameters = parameters
    self.summary = summary
    self.changes = changes
    self.jobs = jobs
  }

  /// - Parameters:
  ///   - claimed: the place, when it has been claimed already.
  ///   - announce: is given each warning before any data is read.
  /// - Throws: what reading, planning or writing throws; nothing is left behind then.
  package func run(
    into path: String, stage claimed: (any Stage)? = nil, announce: (Warning) -> Void
  ) throws(Failure) -> RunReport {
    let byteCount = try neededByteCount()
    if options.isDryRun {
      for warning in warnings { announce(warning) }
      return try report(path, bytesOut: try plan.fileByteCount(), seconds: 0)
    }
    let stage: any Stage
    if let claimed {
      stage = claimed
    } else {
      stage = try destination.stage(path, plan, replacing: options.force, inputs: inputs.identities)
    }
    try checkSpace(for: byteCount, stage.files.freeBytes(), path)
    // Not earlier: a run that cannot begin has one thing to say.
    for warning in warnings { announce(warning) }
    let progress = Progress(activity, total: plan.inputByteCount, style: options.progress)
    defer { progress.finish() }
    let writer = FileWriter(plan, files: stage.files, sha256: options.sha256)
    try stream(into: writer, progress)
    // Sizes that were bounds are known now.
    let plan = writer.plan
    let files = writer.fileDigests + (try destination.writeOthers(plan, into: stage.files, sha256: options.sha256))
    let origin = try source.map { (source) throws(Failure) in try SourceRecord(path: source).members } ?? []
    let manifest = ManifestWriter(
      tensors: plan, operation: operation, options: origin + recorded, files: files,
      outputDigests: writer.outputDigests, sources: plan.stored.tensors, storedDigests: writer.storedDigests)
    try destination.write(manifest, plan, into: stage.files, sha256: options.sha256)
    try inputs.checkUnchanged()
    for input in inputs.others { try input.checkUnchanged() }
    try Interruption.check()
    let leftovers = try stage.commit()
    var report = try report(path, bytesOut: try plan.fileByteCount(), seconds: progress.seconds)
    for warning in leftovers { announce(warning) }
    report.warnings += leftovers
    return report
  }

  /// Pieces are read and encoded in parallel and written in file order. Memory is the ring of pieces in flight and what
  /// their encoders gather; it does not grow with the model.
  private func stream(into writer: FileWriter, _ progress: Progress) throws(Failure) {
    let plan = plan
    let stream = OrderedStream<PlanCursor, PieceBuffer>(jobs: jobs ?? options.jobs) { PieceBuffer() }
    try stream.run(PlanCursor(plan)) { piece, buffer throws(Failure) in
      try buffer.fill(piece, from: plan.source)
    } drain: { piece, buffer throws(Failure) in
      try writer.write(piece, buffer)
      progress.advance(by: plan.inputByteCount(of: piece))
    }
    try writer.finish()
  }

  private func report(_ path: String, bytesOut: Int, seconds: Double) throws(Failure) -> RunReport {
    RunReport(
      output: destination.reportedPath(path, plan), files: destination.fileNames(plan),
      tensors: try plan.entries().count, parameters: parameters ?? plan.parameterCount,
      bytesIn: inputs.others.reduce(plan.inputByteCount) { $0.addingSaturated($1.size) }, bytesOut: bytesOut,
      seconds: seconds, warnings: warnings, changes: changes?(), summary: summary)
  }

  /// Bytes that the output takes, at most.
  package func neededByteCount() throws(Failure) -> Int {
    let besides = try plan.entries().byteCount.addingSaturated(destination.otherByteCount())
    return try plan.fileByteCount().addingSaturated(1 << 16).addingSaturated(besides)
  }

  private func checkSpace(for byteCount: Int, _ free: Int?, _ path: String) throws(Failure) {
    let needed = byteCount.addingSaturated(otherByteCount)
    guard let free, free < needed else { return }
    throw Failure(
      .io, "needs \(byteText(needed)) (\(needed) bytes), but only \(byteText(free)) (\(free) bytes) are free there",
      file: path)
  }
}
