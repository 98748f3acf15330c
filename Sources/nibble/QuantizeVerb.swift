import Bytes
import Calibration
import Commands
import GGUF
import Patterns
import Quantization
import TypeMixtures
import Writing

enum QuantizeVerb: Verb {
  static let name = "quantize"
  static let summary = "weights to few bits: NF4 for training, GGUF, MLX"
  static let operands = "SOURCE -o OUT [options]"
  static let description = [
    "Linear layers in bitsandbytes' 4 bits, in a directory that transformers loads;",
    "or a GGUF file, or one for MLX or vLLM, as their converters make them.",
    "SOURCE: safetensors, GGUF, PyTorch, Meta, FSDP, DeepSpeed, FP8, GPTQ, AWQ …",
  ]
  static let example = [
    "nibble quantize CodeLlama-13b-hf -o CodeLlama-13b.gguf --scheme q4_k_m"
  ]

  private static let scheme = Option(
    "--scheme", value: "NAME", "nf4 (default), fp4; GGUF: q4_k_m …; MLX: mlx-q4",
    "(q2 to q8), mlx-mxfp4; gpt-oss: mxfp4; vLLM:", "fp8-channel, fp8-block, w4a16, nvfp4a16, mxfp4a16")
  private static let blockSize = Option("--block-size", value: "N", "weights per absmax: 32, 64, … 4096 (default: 64)")
  private static let noDoubleQuant = Option(
    "--no-double-quant", "absmax in 32 bits (default: 8): 4.5 bits a weight")
  private static let scaleSearch = Option(
    "--scale-search", value: "KIND", "mse, or positive scales only: a fifth less error")
  private static let quantStorage = Option(
    "--quant-storage", value: "DTYPE", "of the codes (default: uint8; FSDP: training's)")
  private static let computeDtype = Option(
    "--compute-dtype", value: "DTYPE", "what the loader computes in (default: bfloat16)")
  private static let keep = Option(
    "--keep", value: "GLOB", repeatable: true, "stay in 16 bits; 'towers': vision, audio, heads")
  private static let target = Option(
    "--target", value: "NAME", "transformers-5 (default): experts stay 16-bit;",
    "transformers-4: those stored one by one do not")
  private static let forceRequantize = Option(
    "--force-requantize", "quantize again what is quantized already")

  private static let tensorType = Option(
    "--tensor-type", value: "REGEX=TYPE", repeatable: true, "GGUF: this type where the name has a match")
  private static let outputType = Option("--output-type", value: "TYPE", "GGUF: of output.weight")
  private static let embeddingType = Option("--embedding-type", value: "TYPE", "GGUF: of token_embd.weight")
  private static let pure = Option("--pure", "GGUF: the scheme's own type for every matrix")
  private static let importance = Option(
    "--importance", alias: "--imatrix", value: "FILE", "weigh columns by llama-imatrix, nibble.calibrate")

  private static let feedback = Option(
    "--feedback", value: "FILE", "GPTQ's, by nibble.calibrate --hessian: far less")

  private static let feedbackOrder = Option(
    "--feedback-order", value: "ORDER", "columns: activation (default), or as stored")
  private static let damping = Option(
    "--damping", value: "N", "of its correlations, by the mean (default: 0.01)")
  private static let loftqRank = Option(
    "--loftq-rank", value: "R", "also OUT-loftq, a LoRA adapter that mends errors")

  private static let targetBits = Option(
    "--target-bits", value: "N", "bits a weight: what loses most per byte gets more")

  private static let groupSize = Option(
    "--group-size", value: "N", "weights per scale: MLX (64), w4a16 (128)")

  /// Schemes that are written by the same code, and the options that are for them alone.
  private struct Kind: Sendable {
    /// The kind's name in the error "option … is for …".
    var name: String
    var schemes: [String]
    var options: [Option]
    var isFile = false
    var write: @Sendable (_ source: String, _ output: String, Arguments) throws(Failure) -> RunReport

    func has(_ option: Option) -> Bool { options.contains { $0.name == option.name } }
    func has(_ scheme: String) -> Bool { schemes.contains(scheme) || isFile && GGUFScheme(named: scheme) != nil }
  }

  private static let training = Kind(
    name: "NF4 and FP4", schemes: Quantize.Code.allCases.map(\.rawValue),
    options: [
      blockSize, noDoubleQuant, scaleSearch, importance, feedback, feedbackOrder, damping, loftqRank, quantStorage,
      computeDtype, keep, target, targetBits,
    ], write: writeFourBit)
  private static let gguf = Kind(
    name: "a GGUF file", schemes: GGUFScheme.allCases.map(\.rawValue),
    options: [
      tensorType, outputType, embeddingType, pure, importance, feedback, feedbackOrder, damping, targetBits,
    ], isFile: true, write: writeGGUF)
  private static let mlx = Kind(
    name: "MLX", schemes: MLXScheme.allCases.map(\.rawValue), options: [groupSize], write: writeMLX)
  private static let compressed = Kind(
    name: "compressed-tensors", schemes: CompressedScheme.allCases.map(\.rawValue),
    options: [groupSize, scaleSearch, importance, feedback, feedbackOrder, damping, keep], write: writeCompressed)
  private static let experts = Kind(
    name: "gpt-oss in MXFP4", schemes: [QuantizeToMXFP4.scheme], options: [keep], write: writeExperts)
  private static let kinds = [training, gguf, mlx, compressed, experts]

  static let options =
    [Option.output, scheme] + training.options + [forceRequantize]
    + gguf.options.filter { !training.has($0) } + mlx.options + [
      .config, .maxShardSize,
    ]
    + Option.writing

  static func run(_ arguments: Arguments) throws(Failure) -> Int32 {
    let source = try arguments.operands("SOURCE", verb: name)[0]
    let output = try arguments.required(.output, verb: name)
    try OutputName.check(output)
    let report = try kind(arguments, output: output).write(source, output, arguments)
    try report.print(arguments, verb: name)
    return 0
  }

  private static func writeFourBit(
    _ source: String, output: String, _ arguments: Arguments
  ) throws(Failure) -> RunReport {
    var quantize = Quantize()
    if let code = try arguments.choice(scheme, Quantize.Code.self) { quantize.code = code }
    if let size = try arguments.number(blockSize, allowed: 1...1_000_000) {
      guard Quantize.blockSizes.contains(size) else {
        let allowed = Quantize.blockSizes.map(String.init).joined(separator: ", ")
        throw Failure(.usage, "option '--block-size': \(size) is not one of \(allowed)")
      }
      quantize.blockSize = size
    }
    quantize.usesDoubleQuantization = !arguments.has(noDoubleQuant)
    quantize.scaleSearch = try arguments.choice(scaleSearch, ScaleSearch.Kind.self)
    quantize.feedback = arguments.text(feedback)
    quantize.factors = try factors(arguments)
    quantize.importance = arguments.text(importance)
    quantize.loftqRank = try arguments.number(loftqRank, allowed: 1...1_000_000)
    quantize.targetBits = try arguments.decimal(targetBits, allowed: 1...32)
    if let storage = try arguments.choice(quantStorage, Quantize.Storage.self) { quantize.storage = storage }
    if let name = try arguments.choice(computeDtype, among: FloatType.names), let type = FloatType(torchName: name) {
      quantize.computeType = type
    }
    if let loader = try arguments.choice(target, Quantize.Target.self) { quantize.target = loader }
    quantize.keep = arguments.all(keep)
    quantize.forcesRequantization = arguments.has(forceRequantize)
    quantize.run = try RunOptions(arguments)
    return try quantize(source, output: output, announce: Notices(arguments).warn)
  }

  private static func factors(_ arguments: Arguments) throws(Failure) -> FactorSettings {
    for option in [feedbackOrder, damping] where arguments.has(option) && !arguments.has(feedback) {
      throw Failure(.usage, "option '\(option.name)' goes with '--feedback'")
    }
    var settings = FactorSettings()
    if let order = try arguments.choice(feedbackOrder, ColumnOrder.self) { settings.order = order }
    if let number = try arguments.decimal(damping, allowed: 0...1) { settings.damping = number }
    return settings
  }

  // MARK: - Kinds of schemes

  /// - Throws: `usage` when scheme, output and options do not go together.
  private static func kind(_ arguments: Arguments, output: String) throws(Failure) -> Kind {
    let isFile = output.hasSuffix(".gguf")
    let name = arguments.text(scheme)
    // 'mxfp4' is a scheme of llama.cpp too.
    let named = kinds.filter { $0.has(name ?? "") }
    let kind = name == nil ? training : named.first { $0.isFile == isFile } ?? named.first
    if isFile, let kind, !kind.isFile {
      throw Failure(
        .usage,
        "a GGUF file needs a scheme of llama.cpp, such as --scheme q4_k_m; \(kind.schemes[0]) and \(kind.schemes[1]) "
          + "are written as a directory")
    }
    let chosen = isFile ? gguf : kind.flatMap { $0.isFile ? nil : $0 } ?? training
    for other in kinds where other.name != chosen.name {
      guard let option = other.options.first(where: { arguments.has($0) && !chosen.has($0) }) else { continue }
      let names = kinds.filter { $0.has(option) }.map(\.name).joined(separator: ", ")
      throw Failure(.usage, "option '\(option.name)' is for \(names), not for this output")
    }
    guard let kind else {
      let hint = nearest(to: name ?? "", among: kinds.flatMap(\.schemes)).map { "; did you mean '\($0)'?" } ?? ""
      let allowed = isFile ? gguf.schemes : kinds.filter { !$0.isFile }.flatMap(\.schemes)
      throw Failure(
        .usage,
        "option '--scheme': '\(name ?? "")' is not one of \(allowed.joined(separator: ", "))\(hint)")
    }
    guard kind.isFile == isFile else {
      throw Failure(
        .usage, "scheme '\(name ?? "")' is written as a GGUF file: the name of the output must end in .gguf")
    }
    return kind
  }

  private static func writeMLX(_ source: String, output: String, _ arguments: Arguments) throws(Failure) -> RunReport {
    guard let scheme = try arguments.choice(scheme, MLXScheme.self) else { throw Failure(.internal, "no scheme") }
    let size = try arguments.number(groupSize, allowed: 1...1_000_000)
    guard let format = scheme.format(groupSize: size) else {
      let allowed = MLXScheme.groupSizes.filter { scheme.format(groupSize: $0) != nil }.map(String.init)
      throw Failure(
        .usage,
        "option '--group-size': \(size ?? 0) is not one of \(allowed.joined(separator: ", ")) (\(scheme.rawValue))")
    }
    var quantize = QuantizeToMLX(format)
    quantize.forcesRequantization = arguments.has(forceRequantize)
    quantize.run = try RunOptions(arguments)
    return try quantize(source, output: output, announce: Notices(arguments).warn)
  }

  private static func writeCompressed(
    _ source: String, output: String, _ arguments: Arguments
  ) throws(Failure) -> RunReport {
    guard let scheme = try arguments.choice(scheme, CompressedScheme.self) else {
      throw Failure(.internal, "no scheme")
    }
    let size = try arguments.number(groupSize, allowed: 1...1_000_000)
    guard let format = scheme.format(groupSize: size) else {
      let allowed = ScaledFormat.groupSizes.filter { scheme.format(groupSize: $0) != nil }.map(String.init)
      throw Failure(
        .usage,
        "option '--group-size': \(size ?? 0) is not "
          + (allowed.isEmpty ? "for" : "one of \(allowed.joined(separator: ", ")), the sizes of")
          + " \(scheme.rawValue)")
    }
    var quantize = QuantizeToCompressedTensors(format)
    quantize.scaleSearch = try arguments.choice(scaleSearch, ScaleSearch.Kind.self)
    quantize.importance = arguments.text(importance)
    quantize.feedback = arguments.text(feedback)
    quantize.factors = try factors(arguments)
    quantize.keep = arguments.all(keep)
    quantize.forcesRequantization = arguments.has(forceRequantize)
    quantize.run = try RunOptions(arguments)
    return try quantize(source, output: output, announce: Notices(arguments).warn)
  }

  private static func writeExperts(
    _ source: String, output: String, _ arguments: Arguments
  ) throws(Failure) -> RunReport {
    var quantize = QuantizeToMXFP4()
    quantize.keep = arguments.all(keep)
    quantize.forcesRequantization = arguments.has(forceRequantize)
    quantize.run = try RunOptions(arguments)
    return try quantize(source, output: output, announce: Notices(arguments).warn)
  }

  private static func writeGGUF(_ source: String, output: String, _ arguments: Arguments) throws(Failure) -> RunReport {
    guard let scheme = arguments.text(scheme).flatMap(GGUFScheme.init(named:)) else {
      throw Failure(.internal, "no scheme")
    }
    var quantize = QuantizeToGGUF(scheme)
    quantize.choice.outputType = try type(outputType, arguments)
    quantize.choice.embeddingType = try type(embeddingType, arguments)
    quantize.choice.isPure = arguments.has(pure)
    for text in arguments.all(tensorType) { quantize.choice.overrides.append(try TypeChoice.override(text)) }
    quantize.importance = arguments.text(importance)
    quantize.feedback = arguments.text(feedback)
    quantize.factors = try factors(arguments)
    quantize.targetBits = try arguments.decimal(targetBits, allowed: 1...32)
    quantize.forcesRequantization = arguments.has(forceRequantize)
    quantize.run = try RunOptions(arguments)
    if arguments.text(.maxShardSize) == nil { quantize.run.maxShardBytes = .max }
    return try quantize(source, output: output, announce: Notices(arguments).warn)
  }

  private static func type(_ option: Option, _ arguments: Arguments) throws(Failure) -> GGMLType? {
    guard let text = arguments.text(option) else { return nil }
    guard let type = GGMLType(name: text) else {
      let hint = nearest(to: text, among: GGMLType.allCases.map(\.name)).map { "; did you mean '\($0)'?" } ?? ""
      throw Failure(.usage, "option '\(option.name)': '\(text)' is no type of ggml\(hint)")
    }
    return type
  }
}
