import Bytes
import Console
import Verification

enum VerifyVerb: Verb {
  static let name = "verify"
  static let summary = "structure, checksums and the loaders' contract"
  static let operands = "PATH [options]"
  static let description = [
    "Reads every byte and compares it with the manifest that Nibble wrote: of a",
    "flipped bit it names the tensor and, in a large one, the range of bytes; a",
    "missing, extra or swapped file is found. Without a manifest it checks what it",
    "can and says what it could not. For a GGUF model FILE may be the output of",
    "llama-gguf-hash: xxh64, sha1, sha256 or uuid of tensors and files. Exit code 1",
    "for a difference.",
  ]
  static let example = [
    "nibble verify CodeLlama-13b-nf4",
    "nibble verify CodeLlama-13b-nf4 --against CodeLlama-13b-hf",
    "nibble verify CodeLlama-13b.gguf --manifest CodeLlama-13b.gguf.manifest",
  ]

  private static let against = Option(
    "--against", value: "SOURCE", "make it again from this checkpoint and compare")
  private static let manifest = Option(
    "--manifest", value: "FILE", "a manifest that lies elsewhere, or digests that", "llama-gguf-hash printed")

  private static let importance = Option(
    "--importance", value: "FILE", "with --against: what it was quantized by")
  private static let feedback = Option("--feedback", value: "FILE", "the same, of the errors that were made good")

  static let options = [against, .config, importance, feedback, manifest, .jobs, .quiet, .verbose, .json, .help]

  static func run(_ arguments: Arguments) throws(Failure) -> Int32 {
    let path = try arguments.operands("PATH", verb: name)[0]
    var verify = Verify()
    verify.against = arguments.text(against)
    verify.config = arguments.text(.config)
    verify.manifest = arguments.text(manifest)
    verify.importance = arguments.text(importance)
    verify.feedback = arguments.text(feedback)
    for option in [importance, feedback] where arguments.has(option) && !arguments.has(against) {
      throw Failure(.usage, "option '\(option.name)' goes with '--against'")
    }
    if let number = try arguments.number(.jobs, allowed: 1...1024) { verify.jobs = number }
    verify.progress = arguments.has(.quiet) ? .silent : .automatic
    let result = try verify(path)
    let notices = Notices(arguments)
    for warning in result.warnings { notices.warn(warning) }
    try StandardStream.output.write(arguments.has(.json) ? result.json + "\n" : result.text)
    return result.isGood ? 0 : 1
  }
}
