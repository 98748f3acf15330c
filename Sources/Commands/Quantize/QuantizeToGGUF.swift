public import Bytes
public import Calibration
package import Checkpoints
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
  /// A file of `nibble.calibrate --hessian`: what a column loses is made good in those behind it.
  public var feedback: String?
  public var factors = FactorSettings()
  /// Bits for each weight that is quantized: tensors that gain most for each byte get a type of more.
  public var targetBits: Double?
  /// The types that such a run has chosen, where it is made again.
  private var raised: [String: GGMLType] = [:]
  /// Quantize once more what has been quantized before.
  public var forcesRequantization = false
  public var run = RunOptions()

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
      let measured = try measured(of: input)
      let (plan, warnings, budget) = try prepare(input, measured, name: FileName.last(of: output))
      var summary = try QuantizationSummary(gguf: plan)
      summary.budget = budget
      return try WriteRun(
        plan: plan, destination: GGUFDestination(), operation: "quantize", activity: "quantizing", source: input.path,
        recorded: recorded(budget), warnings: input.warnings + warnings, options: run,
        inputs: RunInputs(
          identities: input.identities + measured.files.map(\.identity),
          checkUnchanged: input.checkUnchanged),
        summary: summary
      ).run(into: output, announce: announce)
    } catch { throw input.located(error) }
  }

  package func prepare(from files: CheckpointFiles) throws(Failure) -> WritePlan {
    let input = try GGUFContents(files, isExact: true)
    return try prepare(input, measured(of: input), name: "again.gguf").plan
  }

  package func measured(of input: GGUFContents) throws(Failure) -> GGUFMeasurements {
    try GGUFMeasurements(importance: importance, feedback: feedback, factors, of: input)
  }

  package func prepare(
    _ input: GGUFContents, _ measured: GGUFMeasurements, name: String
  ) throws(Failure) -> (plan: WritePlan, warnings: [Warning], budget: QuantizationSummary.Budget?) {
    var choice = choice
    choice.hasImportance = measured.matrix != nil
    let order = input.tensors.quantizationOrder
    let tensors = order.map { input.tensors[$0] }
    var (types, warnings) = try choice(tensors, metadata: input.metadata)
    if let quantization = input.quantization, choice.scheme.defaultType.isQuantized {
      // It has been read as F32: nothing in its tensors' types tells.
      warnings.append(
        "the source is \(quantization): what that lost and what \(choice.scheme.rawValue) loses add up; the "
          + "16-bit original gives a better file")
    }
    for index in types.indices { types[index] = raised[tensors[index].name.string] ?? types[index] }
    try TypeChoice.checkSource(tensors, types: types, allowsRequantization: forcesRequantization)
    let origins = order.map { $0 < input.origins.count ? input.origins[$0] : nil }
    let isCopy = { (index: Int) in
      origins[index].map { input.stored?.tensors[$0].type == types[index] } ?? false
    }
    let quantized = tensors.indices.filter { types[$0].isQuantized && !isCopy($0) }
    let weights = try measured.importance(of: quantized.map { ($0, tensors[$0]) })
    let source = SortedSource(input.source, order: order)
    var budget: QuantizationSummary.Budget?
    if let targetBits {
      let scan = LossScan(source: source, jobs: run.jobs, style: run.progress)
      var means = weights ?? [:]
      if weights == nil { means = try measured.means(of: quantized.map { ($0, tensors[$0]) }) }
      let chosen = try GGUFTargetBits(bits: targetBits).choose(quantized, types: types, scan, importance: means)
      (types, budget) = (chosen.types, chosen.summary)
    }
    warnings += try measured.feedbackWarnings(quantized.map { (source.tensors[$0], types[$0]) })
    if measured.feedbackFile != nil, let weights,
      weights.keys.allSatisfy({ measured.isFedBack(source.tensors[$0], types[$0]) })
    {
      throw Failure(
        .usage, "option '--importance' has no effect: what it knows of has its errors made good, by their correlations")
    }
    let plan = try WritePlan(
      gguf: name, source: source, types: types, origins: origins, stored: input.stored, importance: weights ?? [:],
      feedback: measured.feedback,
      metadata: input.metadata.quantized(
        to: choice.scheme, importance: measured.matrix, feedback: measured.feedbackFile),
      maxShardBytes: run.maxShardBytes, isFlat: true)
    if let matrix = measured.matrix, weights?.isEmpty == true {
      warnings.append("none of the tensors is in the importance matrix '\(matrix.fileName)'")
    }
    return (plan, warnings, budget)
  }

  private func recorded(_ budget: QuantizationSummary.Budget?) -> [(key: String, value: JSONValue)] {
    let types = choice.overrides.map { JSONValue.string("\($0.pattern)=\($0.type.name)") }
    var pairs: [(key: String, value: JSONValue)] = [
      ("scheme", .string(choice.scheme.rawValue)), ("tensorTypes", .array(types)),
      ("outputType", choice.outputType.map { .string($0.name) } ?? .null),
      ("embeddingType", choice.embeddingType.map { .string($0.name) } ?? .null), ("pure", .bool(choice.isPure)),
      ("importance", importance.map { .string(FileName.last(of: $0)) } ?? .null),
      ("maxShardSize", .number(run.maxShardBytes)),
    ]
    if let feedback { pairs += [("feedback", .string(FileName.last(of: feedback)))] + factors.recorded }
    if let budget {
      pairs += [
        ("targetBits", JSONNumber(budget.target).map(JSONValue.number) ?? .null),
        ("raisedTypes", .array(budget.raised.map { .string($0) })),
      ]
    }
    return pairs
  }
}

extension QuantizeToGGUF {
  /// The run that a manifest tells of.
  ///
  /// - Returns: nil for options that are not those of this verb. Files of measured inputs are named without where they
  ///   lie.
  package init?(recorded options: JSONValue) {
    guard let scheme = options["scheme"]?.string.flatMap(GGUFScheme.init(named:)),
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
    importance = options["importance"]?.string
    feedback = options["feedback"]?.string
    guard let factors = FactorSettings(recorded: options) else { return nil }
    self.factors = factors
    for text in (options["raisedTypes"]?.array ?? []).compactMap(\.string) {
      guard let equals = text.lastIndex(of: "="), let type = GGMLType(name: String(text[text.index(after: equals)...]))
      else { return nil }
      raised[String(text[..<equals])] = type
    }
    forcesRequantization = true
    run.maxShardBytes = .max
  }
}
