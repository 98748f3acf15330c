public import Bytes
import Calibration
import Checkpoints
import GGUF
package import JSON
import Tensors
public import TypeMixtures
public import Writing

/// `nibble quantize SOURCE -o x.gguf --scheme q4_k_m`: a Hugging Face model, or one in GGUF, becomes a GGUF file in
/// blocks of a few bits.
public struct QuantizeToGGUF: Sendable {
  public var choice: TypeChoice
  /// A file of importance, in either form of `llama-imatrix`.
  public var importance: String?
  /// Quantize once more what has been quantized before.
  public var forcesRequantization = false
  public var run = RunOptions()

  /// Far beyond any mean of squares that was measured, and small enough for sums in 32 bits.
  private static let importanceLimit: Float = 1e10

  public init(_ scheme: GGUFScheme) { choice = TypeChoice(scheme) }

  /// - Parameters:
  ///   - announce: is given each warning before any data is read.
  /// - Throws: `unsupported` for an architecture that is not known and for tensors of GGUF that are already quantized;
  ///   `malformed` for a weight that is not finite, naming tensor and index.
  public func callAsFunction(
    _ source: String, output: String, announce: (Warning) -> Void
  ) throws(Failure) -> RunReport {
    let input = try GGUFContents(CheckpointFiles(path: source, config: run.config), isExact: true)
    do throws(Failure) {
      guard try input.metadata.text("general.type") != "adapter" else {
        throw Failure(.unsupported, "is an adapter, not a model: \(Quantize.adapterReason)", file: source)
      }
      let importanceFile = try importance.map { path throws(Failure) in
        try InputFile(path: path, name: FileName.last(of: path))
      }
      if let file = importanceFile, InputStatistics.isLikely(file) {
        throw Failure(
          .unsupported,
          "is a file of nibble.calibrate's own; a GGUF file takes the importance matrix that it writes with "
            + "--imatrix", file: file.name)
      }
      let matrix = try importanceFile.map { file throws(Failure) in try ImportanceMatrix(file) }
      let (plan, warnings) = try prepare(input, matrix, name: FileName.last(of: output))
      return try WriteRun(
        plan: plan, destination: GGUFDestination(), operation: "quantize", activity: "quantizing", source: input.path,
        recorded: recorded, warnings: input.warnings + warnings, options: run,
        inputs: RunInputs(
          identities: input.identities + [importanceFile?.identity].compactMap(\.self),
          checkUnchanged: input.checkUnchanged),
        summary: QuantizationSummary(gguf: plan)
      ).run(into: output, announce: announce)
    } catch { throw input.located(error) }
  }

  package func prepare(
    _ input: GGUFContents, _ matrix: ImportanceMatrix?, name: String
  ) throws(Failure) -> (plan: WritePlan, warnings: [Warning]) {
    var choice = choice
    choice.hasImportance = matrix != nil
    let order = input.tensors.quantizationOrder
    let tensors = order.map { input.tensors[$0] }
    var (types, warnings) = try choice(tensors, metadata: input.metadata)
    if let quantization = input.quantization, choice.scheme.defaultType.isQuantized {
      // It has been read as F32: nothing in its tensors' types tells.
      warnings.append(
        "the source is \(quantization): what that lost and what \(choice.scheme.rawValue) loses add up; the "
          + "16-bit original gives a better file")
    }
    try TypeChoice.checkSource(tensors, types: types, allowsRequantization: forcesRequantization)
    let origins = order.map { $0 < input.origins.count ? input.origins[$0] : nil }
    let isCopy = { (index: Int) in
      origins[index].map { input.stored?.tensors[$0].type == types[index] } ?? false
    }
    let weights = try matrix.map { matrix throws(Failure) in
      try importance(
        matrix, of: tensors.indices.filter { types[$0].isQuantized && !isCopy($0) }.map { ($0, tensors[$0]) })
    }
    let plan = try WritePlan(
      gguf: name, source: SortedSource(input.source, order: order), types: types, origins: origins,
      stored: input.stored, importance: weights ?? [:],
      metadata: input.metadata.quantized(to: choice.scheme, importance: matrix), maxShardBytes: run.maxShardBytes,
      isFlat: true)
    if let matrix, weights?.isEmpty == true {
      warnings.append("none of the tensors is in the importance matrix '\(matrix.fileName)'")
    }
    return (plan, warnings)
  }

  /// How much each column of the tensors matters, by position.
  private func importance(
    _ matrix: ImportanceMatrix, of tensors: [(position: Int, tensor: GGUFTensor)]
  ) throws(Failure) -> [Int: [Float]] {
    var found: [Int: [Float]] = [:]
    for (position, tensor) in tensors {
      guard let columns = tensor.shape.last else { continue }
      let experts = tensor.shape.count > 2 ? tensor.shape[0] : 1
      guard let weights = try matrix.weights(for: tensor.name.string, columns: columns, experts: experts) else {
        continue
      }
      if let largest = weights.max(), largest > Self.importanceLimit {
        throw Failure(
          .malformed, "has the weight \(largest), allowed are \(Self.importanceLimit) at most", file: matrix.fileName,
          tensor: tensor.name.string)
      }
      found[position] = weights
    }
    return found
  }

  private var recorded: [(key: String, value: JSONValue)] {
    [
      ("scheme", .string(choice.scheme.rawValue)),
      (
        "tensorTypes",
        .array(choice.overrides.map { .string("\($0.pattern)=\($0.type.name)") })
      ),
      ("outputType", choice.outputType.map { .string($0.name) } ?? .null),
      ("embeddingType", choice.embeddingType.map { .string($0.name) } ?? .null), ("pure", .bool(choice.isPure)),
      ("importance", importance.map { .string(FileName.last(of: $0)) } ?? .null),
      ("maxShardSize", .number(run.maxShardBytes)),
    ]
  }
}

extension QuantizeToGGUF {
  /// The run that a manifest tells of.
  ///
  /// - Returns: nil for options that are not those of this verb, and where an importance matrix decided too.
  package init?(recorded options: JSONValue) {
    guard let scheme = options["scheme"]?.string.flatMap(GGUFScheme.init(named:)),
      options["importance"]?.isNull == true,
      let overrides = options["tensorTypes"]?.array, let isPure = options["pure"]?.bool
    else { return nil }
    self.init(scheme)
    for override in overrides {
      guard let text = override.string, let override = try? TypeChoice.override(text) else { return nil }
      choice.overrides.append(override)
    }
    for (key, path) in [("outputType", \TypeChoice.outputType), ("embeddingType", \TypeChoice.embeddingType)] {
      guard let value = options[key], !value.isNull else { continue }
      guard let type = value.string.flatMap(GGMLType.init(name:)) else { return nil }
      choice[keyPath: path] = type
    }
    choice.isPure = isPure
    forcesRequantization = true
    run.maxShardBytes = .max
  }
}
