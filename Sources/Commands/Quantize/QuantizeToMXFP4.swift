import Architectures
public import Bytes
package import Checkpoints
package import JSON
import Quantization
import Tensors
public import Writing

/// `nibble quantize SOURCE -o OUT --scheme mxfp4`: a gpt-oss model with its experts in MXFP4, as the original has
/// them.
public struct QuantizeToMXFP4: Sendable {
  /// The scheme's name on the command line.
  public static let scheme = "mxfp4"

  /// Globs of module paths; a module is the experts of a layer.
  public var keep: [String] = []
  /// Dequantize a source of few bits first.
  public var forcesRequantization = false
  public var run = RunOptions()

  /// Positions of the encoders, by their use.
  private static let copying = 0
  private static let quantizing = 1

  public init() {}

  /// The run that a manifest tells of; nil for options that are not those of this verb.
  package init?(recorded options: JSONValue) {
    guard options["scheme"]?.string == Self.scheme, let keep = options["keep"]?.array else { return nil }
    self.keep = keep.compactMap(\.string)
    forcesRequantization = true
  }

  /// - Parameters:
  ///   - announce: is given each warning before any data is read.
  /// - Throws: `unsupported` for a model that is none of gpt-oss's, and for a source that is already quantized;
  ///   `malformed` for a weight that is not finite, naming tensor and index.
  public func callAsFunction(
    _ source: String, output: String, announce: (Warning) -> Void
  ) throws(Failure) -> RunReport {
    try StoredModel.run(source, run, into: output, announce: announce, plannedBy: prepare)
  }

  package func prepare(_ model: StoredModel) throws(Failure) -> WriteRun {
    try model.refuseAdapter(Quantize.adapterReason)
    try GptOssExperts.check(model)
    let contents = try model.checkContents()
    try model.checkQuantizable(forced: forcesRequantization)
    let dequantized = DequantizedSource(model.logical)
    let experts = GptOssExperts(dequantized.tensors, keep: keep.map(Keep.init))
    let narrowed = experts.chosen.filter { dequantized.tensors[$0].type == .f64 }
    var source: any TensorSource = dequantized
    if !narrowed.isEmpty {
      source = try ConvertedSource(source, narrowed.reduce(into: [:]) { $0[$1] = FloatType.f32 })
    }
    if !experts.chosen.isEmpty { source = try TransposedSource(source, experts.chosen) }
    let steps = dequantized.tensors.indices.map { index in
      var origin = dequantized.origin(of: index)
      let isChosen = experts.chosen.contains(index)
      if isChosen, case .stored(let stored) = origin { origin = .derived([stored]) }
      return Step(tensor: index, encoder: isChosen ? Self.quantizing : Self.copying, origin: origin)
    }
    let plan = try StepLayout(maxShardBytes: run.maxShardBytes).plan(
      steps, GptOssExperts.encoders(fate: "quantized", areComputed: model.checkpoint.dequantizes != nil),
      source: source, stored: model.checkpoint)
    let side = try SideFiles(of: model)
    var config = model.config
    config?["quantization_config"] = experts.configuration
    return WriteRun(
      plan: plan, destination: DirectoryDestination(config: config, sideFiles: side), operation: "quantize",
      activity: "quantizing", source: model.checkpoint.path, recorded: recorded,
      warnings: model.warnings + contents.warnings + experts.warnings + side.warnings, options: run,
      inputs: RunInputs(model), summary: experts.summary(plan))
  }

  private var recorded: [(key: String, value: JSONValue)] {
    [
      ("scheme", .string(Self.scheme)), ("keep", .array(keep.map(JSONValue.string))),
      ("maxShardSize", .number(run.maxShardBytes)),
    ]
  }
}
