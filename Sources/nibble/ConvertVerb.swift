import Bytes
import Commands
import Quantization
import Writing

enum ConvertVerb: Verb {
  static let name = "convert"
  static let summary = "to GGUF and back, other shards, another dtype, 4-bit to 16-bit"
  static let operands = "SOURCE -o OUT [options]"
  static let description = [
    "Writes the same weights in new shards, in another dtype if asked. SOURCE is",
    "safetensors, GGUF, PyTorch's, Meta's, or what FSDP or DeepSpeed saved. A 4-bit",
    "checkpoint (NF4, FP4) is dequantized as bitsandbytes would, one of MLX as MLX",
    "would, one in FP8, MXFP4, GPTQ … as its loader would, without a GPU, and loses",
    "its quantization_config; experts that MLX stacks become those of transformers.",
    "",
    "An OUT that ends in .gguf is a file for llama.cpp: names, order of rows,",
    "hyper-parameters and tokenizer as its own converter writes them; vectors",
    "become F32. A GGUF SOURCE becomes a directory for transformers, config.json",
    "and tokenizer rebuilt, quantized blocks in bfloat16, which rounds some of",
    "their values, unless --dtype says otherwise.",
    "",
    "With --base SOURCE is a LoRA adapter: one of PEFT or mlx-lm becomes GGUF, one",
    "in GGUF PEFT's. Without it one of mlx-lm becomes PEFT's.",
  ]
  static let example = [
    "nibble convert CodeLlama-13b-nf4 -o CodeLlama-13b-bf16",
    "nibble convert CodeLlama-13b-hf -o CodeLlama-13b.gguf",
    "nibble convert CodeLlama-13b.gguf -o CodeLlama-13b-hf",
    "nibble convert checkpoint-500 -o tuned",
    "nibble convert sql-adapter -o sql-adapter.gguf --base CodeLlama-13b-hf",
  ]

  private static let type = Option(
    "--dtype", value: "DTYPE", "keep, bfloat16, float16 or float32 (default:",
    "keep, of adapters float32); a value too large for",
    "float16 is an error")

  private static let base = Option(
    "--base", value: "MODEL", "what an adapter was trained on: its names and", "shapes are read, no weights")

  static let options = [Option.output, type, base, .config, .maxShardSize] + Option.writing

  static func run(_ arguments: Arguments) throws(Failure) -> Int32 {
    let source = try arguments.operands("SOURCE", verb: name)[0]
    let output = try arguments.required(.output, verb: name)
    try OutputName.check(output)
    var convert = Convert()
    convert.type = try arguments.choice(type, among: FloatType.namesToKeep).flatMap(FloatType.init(torchName:))
    convert.base = arguments.text(base)
    guard convert.base == nil || !arguments.has(.config) else {
      throw Failure(.usage, "options '--base' and '--config' exclude each other: an adapter has its own")
    }
    // Factors of 16 bits would have llama.cpp round what they are multiplied with.
    if convert.base != nil, arguments.text(type) == nil { convert.type = .f32 }
    convert.run = try RunOptions(arguments)
    // One file, unless a size was named.
    if output.hasSuffix(".gguf"), arguments.text(.maxShardSize) == nil { convert.run.maxShardBytes = .max }
    let notices = Notices(arguments)
    try convert(source, output: output, announce: notices.warn).print(arguments, verb: name)
    return 0
  }
}
