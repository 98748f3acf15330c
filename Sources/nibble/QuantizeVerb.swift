import Bytes
import Pipeline

enum QuantizeVerb: Verb {
  static let name = "quantize"
  static let summary = "16-bit weights to 4 bits (NF4, FP4) for bitsandbytes"
  static let operands = "SOURCE -o OUT [options]"
  static let description = [
    "Writes a directory that transformers loads as it is, in 4 bits: every linear",
    "layer that transformers and bitsandbytes would quantize, bit for bit, with",
    "checksums of every tensor and file. SOURCE is a checkpoint directory, or one",
    "safetensors file.",
  ]
  static let example = ["nibble quantize CodeLlama-13b-hf -o CodeLlama-13b-nf4"]

  private static let scheme = Option("--scheme", value: "NAME", "nf4 or fp4 (default: nf4)")
  private static let blockSize = Option("--block-size", value: "N", "weights per absmax: 32, 64, … 4096 (default: 64)")
  private static let noDoubleQuant = Option(
    "--no-double-quant", "keep absmax in 32 bits (default: in 8 bits,", "4.13 bits a weight instead of 4.5)")
  private static let quantStorage = Option(
    "--quant-storage", value: "DTYPE", "uint8, bfloat16, float16 or float32: what the",
    "packed codes are stored as (default: uint8);",
    "FSDP wants the dtype of training")
  private static let computeDtype = Option(
    "--compute-dtype", value: "DTYPE", "bfloat16, float16 or float32: what the loader",
    "computes in (default: bfloat16)")
  private static let keep = Option(
    "--keep", value: "GLOB", repeatable: true, "leave these modules in 16 bits, such as",
    "'model.layers.*.mlp.down_proj'; 'towers' means",
    "vision and audio towers, projectors and heads")
  private static let target = Option(
    "--target", value: "NAME", "transformers-5 (default: experts stay in 16",
    "bits) or transformers-4 (experts stored one by", "one are quantized)")
  private static let forceRequantize = Option(
    "--force-requantize", "accept a 4-bit SOURCE: dequantize it first")

  static let options =
    [
      Option.output, scheme, blockSize, noDoubleQuant, quantStorage, computeDtype, keep, target, forceRequantize,
      .maxShardSize,
    ]
    + Option.writing

  static func run(_ arguments: Arguments) throws(Failure) -> Int32 {
    let source = try arguments.operands("SOURCE", verb: name)[0]
    let output = try arguments.required(.output, verb: name)
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
    if let storage = try arguments.choice(quantStorage, Quantize.Storage.self) { quantize.storage = storage }
    if let type = try arguments.choice(computeDtype, Quantize.ComputeType.self) { quantize.computeType = type }
    if let loader = try arguments.choice(target, Quantize.Target.self) { quantize.target = loader }
    quantize.keep = arguments.all(keep)
    quantize.forcesRequantization = arguments.has(forceRequantize)
    quantize.run = try RunOptions(arguments)
    let notices = Notices(arguments)
    try quantize(source, output: output, announce: notices.warn).print(arguments, verb: name)
    return 0
  }
}
