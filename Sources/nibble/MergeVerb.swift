import Adapters
import Bytes
import Commands
import Quantization
import TypeMixtures
import Writing

enum MergeVerb: Verb {
  static let name = "merge"
  static let summary = "LoRA adapters into the weights of their base"
  static let operands = "BASE ADAPTER… -o OUT [options]"
  static let description = [
    "Writes the model that PEFT's merge_and_unload() would give, in a few hundred",
    "MiB of memory. ADAPTER is a directory of PEFT or mlx-lm, or a GGUF file; every",
    "tensor in it is used or the merge is refused. A 4-bit BASE becomes 16-bit: the",
    "adapter is added to the weights that the codes stand for, on which it was",
    "trained. An OUT that ends in .gguf is a file for llama.cpp; a BASE in GGUF",
    "keeps there its metadata, the types of its tensors, and whatever no adapter",
    "touches.",
  ]
  static let example = [
    "nibble merge CodeLlama-13b-nf4 sql-adapter -o CodeLlama-13b-sql",
    "nibble merge base one two -o both --weight 0.7 --weight 0.3",
  ]

  private static let weight = Option(
    "--weight", value: "W", repeatable: true, "of each adapter's delta, in order (default: 1)")
  private static let combine = Option(
    "--combine", value: "KIND", "sum (default), or PEFT's ties, dare_ties,", "dare_linear, magnitude_prune")
  private static let density = Option(
    "--density", value: "D", "fraction of values that these keep, 0 to 1", "(default: 0.5)")
  private static let seed = Option("--seed", value: "N", "of what dare drops (default: 0)")
  private static let rounding = Option(
    "--rounding", value: "KIND", "peft (default), once, or peft-safe: as with", "safe_merge=True")
  private static let scheme = Option(
    "--scheme", value: "NAME", "quantize the result in the same pass: nf4, fp4,",
    "mxfp4 (gpt-oss), or q4_k_m … for a GGUF file")
  private static let scaleSearch = Option(
    "--scale-search", value: "KIND", "for nf4 and fp4, as of 'nibble quantize'")
  private static let trainedAs = Option(
    "--base-as-trained", value: "NAME", "nf4 or fp4: merge onto what this quantization",
    "leaves of a 16-bit BASE, as QLoRA trained on it")
  private static let layout = Option(
    "--expert-layout", value: "NAME", "of stacked experts' B: peft (default) or", "unsloth-old")
  private static let type = Option(
    "--dtype", value: "DTYPE", "keep, bfloat16, float16 or float32 (default:", "keep)")

  static let options =
    [
      Option.output, weight, combine, density, seed, rounding, scheme, scaleSearch, trainedAs, layout, type, .config,
      .maxShardSize,
    ] + Option.writing

  static func run(_ arguments: Arguments) throws(Failure) -> Int32 {
    guard arguments.operands.count >= 2 else {
      let missing = arguments.operands.isEmpty ? "BASE" : "ADAPTER"
      throw Failure(.usage, "\(missing) is missing; see 'nibble merge --help'")
    }
    let base = arguments.operands[0]
    let adapters = Array(arguments.operands.dropFirst())
    let output = try arguments.required(.output, verb: name)
    try OutputName.check(output)
    var merge = Merge()
    merge.settings = try settings(arguments, adapters: adapters.count)
    if let name = arguments.text(scheme) { try check(name, output) }
    if output.hasSuffix(".gguf") {
      merge.ggufScheme = try arguments.choice(scheme, GGUFScheme.self)
    } else if arguments.text(scheme) == QuantizeToMXFP4.scheme {
      merge.quantizesExperts = true
    } else {
      let names = Quantize.Code.allCases.map(\.rawValue) + [QuantizeToMXFP4.scheme]
      merge.scheme = try arguments.choice(scheme, among: names).flatMap(Quantize.Code.init)
    }
    merge.scaleSearch = try arguments.choice(scaleSearch, ScaleSearch.Kind.self)
    if let choice = try arguments.choice(trainedAs, Quantize.Code.self) { merge.trainedAs = choice }
    merge.type = try arguments.choice(type, among: FloatType.namesToKeep).flatMap(FloatType.init(torchName:))
    merge.run = try RunOptions(arguments)
    // One file, unless a size was named.
    if output.hasSuffix(".gguf"), arguments.text(.maxShardSize) == nil { merge.run.maxShardBytes = .max }
    let notices = Notices(arguments)
    let report = try merge(base, adapters: adapters, output: output, announce: notices.warn)
    if !arguments.has(.json), !arguments.has(.quiet) {
      try StandardStream.output.write(report.changesTable(isVerbose: arguments.has(.verbose)))
    }
    try report.print(arguments, verb: name)
    return 0
  }

  /// - Throws: `usage` for a scheme of the other kind of output.
  private static func check(_ scheme: String, _ output: String) throws(Failure) {
    if output.hasSuffix(".gguf") {
      guard Quantize.Code(rawValue: scheme) != nil else { return }
      throw Failure(
        .usage,
        "a GGUF file needs a scheme of llama.cpp, such as --scheme q4_k_m; \(scheme) is written as a directory, whose "
          + "name does not end in .gguf")
    }
    guard GGUFScheme(named: scheme) != nil, scheme != QuantizeToMXFP4.scheme else { return }
    throw Failure(.usage, "scheme '\(scheme)' is written as a GGUF file: the name of the output must end in .gguf")
  }

  private static func settings(_ arguments: Arguments, adapters: Int) throws(Failure) -> MergeSettings {
    var settings = MergeSettings()
    for text in arguments.all(weight) {
      guard let value = Double(text), value.isFinite else {
        throw Failure(.usage, "option '--weight': '\(text)' is not a number")
      }
      settings.weights.append(value)
    }
    guard settings.weights.isEmpty || settings.weights.count == adapters else {
      throw Failure(
        .usage,
        "option '--weight' is given \(counted(settings.weights.count, "time")) for \(counted(adapters, "adapter")): one for each, or none"
      )
    }
    if let kind = try arguments.choice(combine, Combination.self) { settings.combination = kind }
    if let text = arguments.text(density) {
      guard let value = Double(text), (0...1).contains(value) else {
        throw Failure(.usage, "option '--density': '\(text)' is not a number from 0 to 1")
      }
      settings.density = value
    }
    if let number = try arguments.number(seed, allowed: 0...Int.max) { settings.seed = number }
    if let kind = try arguments.choice(rounding, MergeSettings.Rounding.self) { settings.rounding = kind }
    if let kind = try arguments.choice(layout, ExpertLayout.self) { settings.expertLayout = kind }
    if settings.combination == .sum {
      for option in [density, seed] where arguments.has(option) {
        throw Failure(
          .usage, "option '\(option.name)' goes with '--combine' ties, dare_ties, dare_linear or magnitude_prune")
      }
    } else if adapters < 2 {
      throw Failure(.usage, "option '--combine \(settings.combination.rawValue)' needs at least two adapters")
    }
    return settings
  }
}
