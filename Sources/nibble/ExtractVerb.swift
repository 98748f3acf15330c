import Bytes
import Console
import Extraction
import Quantization
import Writing

enum ExtractVerb: Verb {
  static let name = "extract-lora"
  static let summary = "a LoRA adapter from what tuning changed"
  static let operands = "BASE TUNED --rank R -o OUT [options]"
  static let description = [
    "Writes the PEFT adapter of rank R that comes nearest to TUNED - BASE: of each",
    "linear weight that changed the truncated singular value decomposition, by",
    "random projection where the weight is large. Tells what part of the change's",
    "energy (sum of squares) it holds. A 4-bit side is dequantized. Memory: one",
    "weight in 32 bits.",
  ]
  static let example = ["nibble extract-lora CodeLlama-13b-hf CodeLlama-13b-sql --rank 64 -o lora"]

  private static let rank = Option("--rank", value: "R", "of every module's factors (required)")
  private static let precision = Option(
    "--dtype", value: "DTYPE", "float32, bfloat16 or float16 (default: float32);", "16 bits halve the file")
  private static let target = Option(
    "--target", value: "GLOB", repeatable: true, "only these modules, such as '*.self_attn.*_proj'",
    "(default: every linear layer but the head)")
  private static let saveRest = Option(
    "--save-rest", "also save, whole, embeddings, norms, head and", "biases that changed (default: a warning)")

  private static let output = Option(
    "--output", short: "-o", value: "DIR", "the directory to create (required)")

  static let options = [output, rank, precision, target, saveRest] + Option.writing

  static func run(_ arguments: Arguments) throws(Failure) -> Int32 {
    let paths = try arguments.operands("BASE", "TUNED", verb: name)
    let output = try arguments.required(output, verb: name)
    try OutputName.check(output)
    _ = try arguments.required(rank, verb: name)
    var extract = ExtractLoRA(rank: try arguments.number(rank, allowed: 1...1_000_000) ?? 1)
    let names = [FloatType.f32, .bf16, .f16].map(\.torchName)
    if let name = try arguments.choice(precision, among: names), let type = FloatType(torchName: name) {
      extract.type = type
    }
    extract.targets = arguments.all(target)
    extract.savesRest = arguments.has(saveRest)
    extract.run = try RunOptions(arguments)
    let notices = Notices(arguments)
    let report = try extract(paths[0], paths[1], output: output, announce: notices.warn)
    if arguments.has(.json) {
      try StandardStream.output.write(report.json + "\n")
    } else {
      try StandardStream.output.write((arguments.has(.quiet) ? "" : report.text) + summary(report, arguments))
    }
    return 0
  }

  private static func summary(_ report: ExtractReport, _ arguments: Arguments) -> String {
    if arguments.has(.dryRun) {
      return "would write \(report.output.printable()): \(counted(report.files.count, "file")), factors of up to "
        + "\(counted(report.candidates.count, "module"))\n"
    }
    let seconds = report.seconds > 0 ? ", \((report.seconds * 100).rounded() / 100) s" : ""
    return
      "wrote \(report.output.printable()): \(counted(report.files.count, "file")), \(byteText(report.bytesOut))\(seconds)\n"
  }
}
