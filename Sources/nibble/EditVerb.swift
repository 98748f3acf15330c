import Bytes
import Console
import HeaderEditing

enum EditVerb: Verb {
  static let name = "edit"
  static let summary = "change the metadata of one GGUF or safetensors file"
  static let operands = "FILE [options]"
  static let description = [
    "Changes metadata; tensor data stays bit for bit. A GGUF value keeps its type;",
    "TYPE:VALUE (u8 i8 u16 i16 u32 i32 u64 i64 f32 f64 bool str) gives one, and an",
    "array is JSON: [1, 2]. KEY=@FILE takes the contents of a file, KEY=@@TEXT is",
    "a text that begins with @. Of a split model only the first file has metadata.",
    "A manifest of Nibble beside the file is checked and brought up to date.",
    "",
    "A header that keeps its length is written in place: old and new are first",
    "saved in FILE.nibble-header, from which the next edit repairs FILE after a",
    "power failure. Else a new file takes the old one's place, complete. Links,",
    "such as those of the Hugging Face cache, are refused.",
  ]
  static let example = [
    "nibble edit model.gguf --set general.name='Code Llama' --dry-run",
    "nibble edit model.gguf --set tokenizer.ggml.eos_token_id=32010",
    "nibble edit model.gguf --set tokenizer.chat_template=@chat_template.jinja",
  ]

  private static let set = Option(
    "--set", value: "KEY=VALUE", repeatable: true, "a new value, or a new key; KEY=@FILE: of a file")
  private static let remove = Option("--remove", value: "KEY", repeatable: true, "a key and its value")
  private static let rename = Option("--rename", value: "OLD=NEW", repeatable: true, "a key that keeps its value")

  static let options = [set, remove, rename, .dryRun, .quiet, .verbose, .json, .help]

  static func run(_ arguments: Arguments) throws(Failure) -> Int32 {
    let path = try arguments.operands("FILE", verb: name)[0]
    var edit = Edit()
    edit.settings = arguments.all(set)
    edit.removals = arguments.all(remove)
    edit.renames = arguments.all(rename)
    edit.isDryRun = arguments.has(.dryRun)
    edit.progress = arguments.has(.quiet) ? .silent : .automatic
    let report = try edit(path, announce: Notices(arguments).warn)
    try StandardStream.output.write(
      arguments.has(.json) ? report.json + "\n" : report.text(isDryRun: arguments.has(.dryRun)))
    return 0
  }
}
