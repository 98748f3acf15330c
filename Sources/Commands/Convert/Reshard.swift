public import Bytes
package import Checkpoints
import Console
import GGUF
import JSON
import PackedWeights
import Quantization
import Safetensors
public import Writing

/// `nibble split` and `nibble join`: the same tensors, byte for byte, in other files.
public struct Reshard: Sendable {
  public enum Operation: String, Sendable {
    case split, join
  }

  public var operation: Operation
  public var run = RunOptions()

  public init(_ operation: Operation) { self.operation = operation }

  /// - Parameter output: a directory; of a GGUF model the name of its files, with or without `.gguf`.
  public func callAsFunction(
    _ source: String, output: String, announce: (Warning) -> Void
  ) throws(Failure) -> RunReport {
    let files = try CheckpointFiles(path: source)
    if case .gguf(let values) = files {
      guard !InputDirectory.exists(at: output), !output.hasSuffix("/") else {
        let directory = output.hasSuffix("/") ? output : output + "/"
        throw Failure(.cannotCreate, "is a directory; name the model in it, such as '\(directory)model'", file: output)
      }
      return try gguf(values, output: output.hasSuffix(".gguf") ? output : output + ".gguf", announce: announce)
    }
    guard !output.hasSuffix(".gguf") else {
      throw Failure(.usage, "'\(source)' is no GGUF model; 'nibble convert' makes one of it")
    }
    let model = try StoredModel(stored: files)
    try model.refuseAdapter("PEFT reads it from one file, which it is in")
    do throws(Failure) {
      return try prepare(model).run(into: output, announce: announce)
    } catch { throw model.located(error) }
  }

  private var maxShardBytes: Int { operation == .join ? .max : run.maxShardBytes }

  private var recorded: [(key: String, value: JSONValue)] {
    operation == .join ? [] : [("maxShardSize", .number(maxShardBytes))]
  }

  private func warnings(_ warnings: [Warning], fileCount: Int) -> [Warning] {
    guard operation == .split, fileCount == 1 else { return warnings }
    return warnings + ["everything fits into one file of \(byteText(maxShardBytes))"]
  }

  // MARK: - GGUF

  private func gguf(_ values: StoredGGUF, output: String, announce: (Warning) -> Void) throws(Failure) -> RunReport {
    let input = try GGUFContents(values)
    let plan = try WritePlan(
      gguf: FileName.last(of: output), source: input.source, types: input.tensors.map(\.type),
      origins: Array(input.tensors.indices), stored: input.stored, metadata: input.metadata,
      maxShardBytes: maxShardBytes)
    return try WriteRun(
      // Whoever joins some parts may want to keep the others.
      plan: plan, destination: GGUFDestination(replacesOthers: operation == .split), operation: operation.rawValue,
      activity: "copying", source: values.path, recorded: recorded,
      warnings: warnings(input.warnings, fileCount: plan.container.files.count), options: run, inputs: RunInputs(input)
    ).run(into: output, announce: announce)
  }

  // MARK: - Safetensors

  /// All tensors of safetensors files as they are.
  package func plan(from files: CheckpointFiles) throws(Failure) -> WritePlan {
    try prepare(StoredModel(stored: files)).plan
  }

  private func prepare(_ model: StoredModel) throws(Failure) -> WriteRun {
    var steps: [Step] = []
    var layout = StepLayout(maxShardBytes: maxShardBytes)
    if operation == .join { layout.maxTensorsPerShard = .max }
    func copy(_ index: Int) -> Step { Step(tensor: index, encoder: 0, origin: .stored(index)) }
    for item in model.logical.items {
      switch item {
      case .plain(let index): steps.append(copy(index))
      case .packed(let weight):
        steps.append(copy(weight.payload))
        layout.followers[weight.payload] = weight.parts.dropFirst().sorted().map(copy)
      }
    }
    if let stored = model.checkpoint.files.safetensors { layout.metadata = stored.checkpoint.metadata }
    let plan = try layout.plan(steps, [CopyEncoder()], source: model.checkpoint, stored: model.checkpoint)
    var sideFiles = try SideFiles(of: model)
    let isMade = model.checkpoint.madeConfig != nil
    if !isMade, model.config != nil, let directory = model.checkpoint.directory {
      sideFiles.add(StoredModel.configName, in: directory)
    }
    return WriteRun(
      plan: plan, destination: DirectoryDestination(config: isMade ? model.config : nil, sideFiles: sideFiles),
      operation: operation.rawValue, activity: "copying", source: model.checkpoint.path, recorded: recorded,
      warnings: warnings(model.warnings, fileCount: plan.container.files.count), options: run,
      inputs: RunInputs(model), parameters: model.parameterCount)
  }
}
