import Architectures
public import Bytes
import Checkpoints
import Commands
public import Console
import HeaderEditing
import JSON
import Safetensors
package import Tensors
import Writing

/// `nibble verify`: is the checkpoint what its manifest says, and what the trainers' loaders expect?
public struct Verify: Sendable {
  /// A manifest that lies elsewhere, or what `llama-gguf-hash` printed.
  public var manifest: String?
  /// The checkpoint it was made from: quantize again and compare.
  public var against: String?
  /// The directory of that checkpoint's configuration, where it is not beside its weights.
  public var config: String?
  /// The files of measured inputs that it was quantized by, as `quantize` was given them.
  public var importance: String?
  public var feedback: String?
  public var jobs = processorCount()
  public var progress = Progress.Style.automatic

  public init() {}

  public struct Problem: Sendable {
    public var file: String?
    public var tensor: String?
    public var problem: String
  }

  public struct Result: Sendable {
    public var tensorsChecked = 0
    public var bytesChecked = 0
    public var problems: [Problem] = []
    /// The parts that could not be checked, and why.
    public var notChecked: [String] = []
    public var warnings: [Warning] = []

    public var isGood: Bool { problems.isEmpty }

    package mutating func add(_ failure: Failure) {
      problems.append(Problem(file: failure.file, tensor: failure.tensor, problem: failure.text))
    }

    package mutating func add(file: String? = nil, tensor: TensorName? = nil, _ problem: String) {
      problems.append(Problem(file: file, tensor: tensor?.string, problem: problem))
    }
  }

  /// - Throws: `malformed` for a damaged checkpoint only when there is no manifest to compare it with.
  public func callAsFunction(_ path: String) throws(Failure) -> Result {
    var result = Result()
    let format = try CheckpointFormat.detect(path)
    let directory = InputDirectory.exists(at: path) ? try InputDirectory(path: path) : nil
    let sidecar = manifest == nil ? try GGUFSidecar(path: path, format) : nil
    let hashes = try readHashes()
    // Headers are read once; beside a manifest, which may be as large, only when it is gone.
    let files = hashes == nil ? nil : try CheckpointFiles(path: path, format, config: nil)
    if HeaderJournal.isThere(for: path) {
      result.add(file: FileName.last(of: path), "an edit of it was interrupted; 'nibble edit' on the file repairs it")
    }
    let hasManifest: Bool
    if let hashes {
      try HashCheck(manifest: hashes, style: progress).run(files?.gguf?.checkpoint, path, &result)
      hasManifest = true
    } else {
      hasManifest = try checkDigests(path, sidecar?.directory ?? directory, sidecar, &result)
    }
    var logical: LogicalTensors?
    do throws(Failure) {
      let files = if let files { files } else { try CheckpointFiles(path: path, format, config: nil) }
      logical = try checkContents(files, hasManifest: hasManifest, &result)
    } catch {
      // Damage is a difference where there is something to differ from; a failing disk is not.
      if !hasManifest || ![.malformed, .missing, .unsupported].contains(error.code) { throw error }
      if !result.problems.contains(where: { $0.file == error.file && error.file != nil }) { result.add(error) }
    }
    if let against { try compare(logical, with: against, &result) }
    return result
  }

  /// Whether there is a manifest. It is as large as the checkpoint's headers, and gone when this returns.
  private func checkDigests(
    _ path: String, _ directory: InputDirectory?, _ sidecar: GGUFSidecar?, _ result: inout Result
  ) throws(Failure) -> Bool {
    guard let manifest = try readManifest(directory, sidecar, &result) else {
      let name = sidecar?.name ?? Manifest.fileName
      result.notChecked.append("digests: there is no \(name) that says what they should be")
      return false
    }
    try DigestCheck(manifest: manifest, jobs: jobs, style: progress).run(
      path, directory, isWhole: sidecar == nil, &result)
    return true
  }

  /// The digests that another tool has listed; nil for a manifest of Nibble, or none.
  private func readHashes() throws(Failure) -> HashManifest? {
    guard let manifest else { return nil }
    let file = try InputFile(path: manifest)
    return try HashManifest.isLikely(file) ? HashManifest(file) : nil
  }

  private func readManifest(
    _ directory: InputDirectory?, _ sidecar: GGUFSidecar?, _ result: inout Result
  ) throws(Failure) -> Manifest? {
    if let manifest { return try Manifest(InputFile(path: manifest)) }
    let name = sidecar?.name ?? Manifest.fileName
    guard let directory, directory.contains(name) else {
      if sidecar == nil, let directory, directory.contains(Manifest.checksumsName) {
        result.add(file: Manifest.fileName, "is missing, but \(Manifest.checksumsName) is there")
      }
      return nil
    }
    do throws(Failure) {
      return try Manifest(directory.open(name))
    } catch {
      // A manifest that was there and is damaged counts as a difference, not as its absence.
      result.add(error)
      return nil
    }
  }

  // MARK: - Structure and contract

  private func checkContents(
    _ files: CheckpointFiles, hasManifest: Bool, _ result: inout Result
  ) throws(Failure) -> LogicalTensors {
    let checkpoint = files.checkpoint
    if let stored = files.safetensors, let fault = stored.checkpoint.indexFault {
      // What the manifest lists and is gone has been said already.
      if !result.problems.contains(where: { $0.file == fault.file }) { result.add(file: fault.file, fault.text) }
      result.warnings += stored.checkpoint.warnings
    } else {
      result.warnings += checkpoint.warnings
    }
    if !hasManifest { result.tensorsChecked = checkpoint.tensors.count }
    if let stored = files.pytorch { try ArchiveCheck(checkpoint: stored.checkpoint, style: progress).run(&result) }
    let logical = try LogicalTensors(lenient: checkpoint)
    for problem in logical.problems { result.add(problem) }
    let contract = ContractCheck(checkpoint: checkpoint, logical: logical)
    try contract.run(&result)
    return logical
  }

  private func compare(_ logical: LogicalTensors?, with source: String, _ result: inout Result) throws(Failure) {
    guard let logical, logical.problems.isEmpty else {
      result.notChecked.append("the comparison with \(source): the checkpoint is damaged")
      return
    }
    let checkpoint = logical.checkpoint
    let files = try CheckpointFiles(path: source, config: config)
    // A manifest from elsewhere may be that of other options.
    let record = manifest == nil ? try? SourceRecord(path: checkpoint.path) : nil
    if let reason = incomparable(record, checkpoint) {
      result.notChecked.append("the comparison with \(source): \(reason)")
      return
    }
    var recorded = record.flatMap(RecordedRun.init)
    for (option, name) in recorded?.measured ?? [] where (option == "--feedback" ? feedback : importance) == nil {
      result.notChecked.append(
        "the comparison with \(source): what was measured of the model's inputs decided too (\(option) names the "
          + "file, which was '\(name.printable(limit: 200))')")
      return
    }
    recorded = recorded?.measured(importance: importance, feedback: feedback)
    if recorded == nil, ["quantize", "convert"].contains(record?.operation) {
      result.notChecked.append(
        "the options of the manifest: they are none of this version's '\(record?.operation ?? "")'")
    }
    if let values = checkpoint.files.gguf {
      var again: QuantizeToGGUF?
      if case .quantizeToGGUF(let run) = recorded { again = run }
      try GGUFSourceCheck(
        values: values, files: files, recorded: again, against: source, jobs: jobs, style: progress
      ).run(&result)
    } else if let run = try wholeRun(recorded, checkpoint, files) {
      return try PlanCheck(
        plan: run.plan(from: files, isGGUF: false), checkpoint: checkpoint, against: source, jobs: jobs, style: progress
      ).run(&result)
    } else if try StoredModel(stored: checkpoint.files).quantizationMethod == .other("MLX") {
      result.notChecked.append("the comparison with \(source): weights in a mode of MLX that is not known here")
      return
    } else {
      try SourceCheck(logical: logical, files: files, against: source, jobs: jobs, style: progress).run(&result)
    }
    if let recorded, !recorded.isCopy { try compareLayout(recorded, checkpoint, with: files, source, &result) }
  }

  /// Why a checkpoint cannot be made again from one source; nil when it can.
  private func incomparable(_ record: SourceRecord?, _ checkpoint: any StoredCheckpoint) -> String? {
    switch record?.operation {
    case "merge": return "an adapter was merged into it"
    case "extract-lora": return "an adapter is made from two models"
    case "quantize" where record?.options?["loftqRank"] != nil && record?.options?["scheme"] == nil:
      return "an adapter is made from two models"
    case "convert" where record?.options?["base"]?.string != nil:
      return "an adapter is converted by the names of its base"
    default: return nil
    }
  }

  /// A run that is made again whole; nil for a checkpoint in 4 bits of 16 or 32, whose statistics bitsandbytes may have
  /// rounded otherwise, and for one that says of no run.
  private func wholeRun(
    _ recorded: RecordedRun?, _ checkpoint: any StoredCheckpoint, _ files: CheckpointFiles
  ) throws(Failure) -> RecordedRun? {
    switch recorded {
    case .convert, .quantizeToMLX, .quantizeToCompressedTensors, .quantizeToMXFP4: return recorded
    case .quantize(let run):
      if run.scaleSearch != nil || run.feedback != nil { return recorded }
      let source = try StoredModel(files)
      return source.gguf != nil || source.quantizationMethod != .none || source.checkpoint.dequantizes != nil
        ? recorded : nil
    case .quantizeToGGUF: return nil
    case .copy, nil:
      if isCopy(checkpoint, of: files) { return .copy(Reshard(.join)) }
      guard let model = try? StoredModel(stored: checkpoint.files), model.quantizationMethod == .other("MLX") else {
        return nil
      }
      return QuantizeToMLX(of: model).map(RecordedRun.quantizeToMLX)
    }
  }

  /// Whether both have the same tensors in the same types and shapes, some of them quantized.
  private func isCopy(_ checkpoint: any StoredCheckpoint, of files: CheckpointFiles) -> Bool {
    guard let source = try? StoredModel(stored: files), source.gguf == nil, source.quantizationMethod != .none else {
      return false
    }
    func keys(_ tensors: [TensorInfo]) -> Set<String> {
      Set(tensors.map { "\($0.type.name)\($0.shape) \($0.name.string)" })
    }
    return keys(checkpoint.tensors) == keys(files.checkpoint.tensors)
  }

  /// Holds the checkpoint to the options in its own manifest: values alone do not tell what should have been quantized.
  private func compareLayout(
    _ recorded: RecordedRun, _ checkpoint: any StoredCheckpoint, with files: CheckpointFiles, _ source: String,
    _ result: inout Result
  ) throws(Failure) {
    do throws(Failure) {
      let plan = try recorded.plan(from: files, isGGUF: checkpoint.files.gguf != nil)
      try LayoutCheck(plan: plan, checkpoint: checkpoint, against: source).run(&result)
    } catch {
      if error.code == .io { throw error }
      result.notChecked.append("the options of the manifest against \(source): \(error)")
    }
  }
}

extension Verify.Result {
  /// The object that `--json` prints.
  public var json: String {
    JSONValue.object([
      "ok": .bool(isGood), "tensorsChecked": .number(tensorsChecked), "bytesChecked": .number(bytesChecked),
      "problems": .array(
        problems.map { problem in
          .object([
            "file": problem.file.map(JSONValue.string) ?? .null,
            "tensor": problem.tensor.map(JSONValue.string) ?? .null,
            "problem": .string(problem.problem),
          ])
        }),
      "notChecked": .array(notChecked.map(JSONValue.string)),
    ]).text(.indented)
  }

  public var text: String {
    var text = ""
    for problem in problems {
      text += "\(Failure(.malformed, problem.problem, file: problem.file, tensor: problem.tensor))\n"
    }
    for item in notChecked { text += "not checked: \(item.printable())\n" }
    text += isGood ? "ok" : counted(problems.count, "problem")
    return text + ": \(counted(tensorsChecked, "tensor")), \(byteText(bytesChecked)) checked\n"
  }
}
