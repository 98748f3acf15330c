import Bytes
import TrainingMemory

enum FitVerb: Verb {
  static let name = "fit"
  static let summary = "does training fit on these GPUs, and how long a sequence"
  static let operands = "MODEL [options]"
  static let description = [
    "Memory that training takes on each GPU: all weights, LoRA in 16 bits, QLoRA.",
    "From headers and configuration alone; MODEL is a checkpoint or config.json of",
    "a decoder: Llama, Mistral, Mixtral, Qwen, Gemma, Phi-3, GLM, Cohere, DeepSeek",
    "and more. Weights are whole on every GPU; only qlora-fsdp, and ZeRO-3 without",
    "4 bits, divides them. 512 MiB of each GPU are taken for the CUDA context, and",
    "no autocast is assumed. What fits by less than 10 % just fits: a card may find",
    "otherwise.",
  ]
  static let example = [
    "nibble fit CodeLlama-13b-hf",
    "nibble fit config.json --gpus 3x24GiB --batch 4 --seq-len 4096",
  ]

  private static let gpus = Option("--gpus", value: "NxSIZE", "how many of what memory (default: 1x24GiB)")
  private static let rank = Option("--lora-rank", value: "R", "of every module's factors (default: 64)")
  private static let targets = Option(
    "--target-modules", value: "NAMES", "all-linear, or last names with commas between,",
    "such as q_proj,v_proj (default: all-linear)")
  private static let batch = Option("--batch", value: "N", "sequences on each GPU (default: 1)")
  private static let sequence = Option(
    "--seq-len", value: "N", "tokens of each sequence (default: 2048, or as",
    "many as the model was made for)")
  private static let optimizer = Option(
    "--optimizer", value: "NAME", "adamw, adamw-8bit, paged-adamw or sgd (default:",
    "adamw); qlora-paged is always paged-adamw")
  private static let zeroStage = Option(
    "--zero-stage", value: "N", "0 (DDP), 2: gradients and optimizer divided, or", "3: weights too (default: 0)")
  private static let noCheckpointing = Option(
    "--no-gradient-checkpointing", "keep all activations (default: recompute them)")

  private static let require = Option("--require", "exit code 1 when no strategy fits")

  static let options = [
    gpus, rank, targets, batch, sequence, optimizer, zeroStage, noCheckpointing, .config, require, .quiet, .verbose,
    .json,
    .help,
  ]

  static func run(_ arguments: Arguments) throws(Failure) -> Int32 {
    let path = try arguments.operands("MODEL", verb: name)[0]
    var fit = Fit()
    if let text = arguments.text(gpus) { (fit.gpus, fit.gpuBytes) = try cards(text) }
    if let number = try arguments.number(rank, allowed: 1...1_000_000) { fit.rank = number }
    if let text = arguments.text(targets), text != "all-linear" { fit.targetModules = try names(text) }
    if let number = try arguments.number(batch, allowed: 1...Fit.searchLimit) { fit.batch = number }
    if let number = try arguments.number(sequence, allowed: 1...Fit.searchLimit) { fit.sequenceLength = number }
    if let choice = try arguments.choice(optimizer, FitOptimizer.self) { fit.optimizer = choice }
    if let number = try arguments.number(zeroStage, allowed: 0...3) {
      guard number != 1 else { throw Failure(.usage, "option '--zero-stage': '1' is not one of 0, 2, 3") }
      fit.zeroStage = number
    }
    fit.checkpointing = !arguments.has(noCheckpointing)
    fit.config = arguments.text(.config)
    let report = try fit(path)
    let notices = Notices(arguments)
    for warning in report.warnings { notices.warn(warning) }
    try StandardStream.output.write(arguments.has(.json) ? report.json + "\n" : report.text)
    return arguments.has(require) && !report.rows.contains(where: \.fits) ? 1 : 0
  }

  /// `3x24GiB`, or `24GiB` for one.
  private static func cards(_ text: String) throws(Failure) -> (count: Int, bytes: Int) {
    let parts = text.split(separator: "x", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    let count = parts.count == 2 ? Int(parts[0]) : 1
    guard let count, (1...65_536).contains(count), let size = parts.last,
      let bytes = try Arguments.bytes(size, of: gpus)
    else {
      throw Failure(.usage, "option '--gpus': '\(text)' is not a number of GPUs and their memory such as 3x24GiB")
    }
    return (count, bytes)
  }

  private static func names(_ text: String) throws(Failure) -> [String] {
    let names = text.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    guard names.allSatisfy({ !$0.isEmpty }) else {
      throw Failure(.usage, "option '--target-modules': '\(text)' has an empty name")
    }
    return names
  }
}
