import Bytes
import JSON
import ModelFamilies
import PyTorch
import Tensors

/// A model in the form of Meta's or Mistral's own code: `consolidated.00.pth` and on, or `consolidated.safetensors`,
/// and `params.json`.
extension PlannedCheckpoint {
  private static let checksumsName = "checklist.chk"
  private static let tokenizerName = "tokenizer.model"

  /// Those of a directory's files that have weights in this form.
  static func metaFiles(among names: [String]) -> Set<String> {
    let isDescribed = names.contains(MetaParameters.fileName)
    return Set(
      names.filter { name in
        if ConsolidatedCheckpoint.isThere(among: [name]) { return true }
        let isSafetensors = name.hasSuffix(".safetensors") || name.hasSuffix(".safetensors.index.json")
        return isDescribed && isSafetensors && ["consolidated.", "consolidated-"].contains { name.hasPrefix($0) }
      })
  }

  /// - Throws: `missing` for a part or `params.json`, `malformed` where the parts, or they and `params.json`, say
  ///   different things, `unsupported` for other models than Llama's and Mistral's.
  init(meta path: String) throws(Failure) {
    let directory = try InputDirectory(path: path)
    guard directory.contains(MetaParameters.fileName) else {
      throw Failure(
        .missing, "the file is missing, which says how to put the parts of 'consolidated' files together",
        file: MetaParameters.fileName)
    }
    let file = try directory.open(MetaParameters.fileName)
    let parameters = try MetaParameters(
      JSONValue(parsing: file.contents(limit: MetaParameters.sizeLimit), .python, file: file.name))
    var made: MetaPlan?
    let base: any StoredCheckpoint
    if ConsolidatedCheckpoint.isThere(among: try directory.names()) {
      let checkpoint = try ConsolidatedCheckpoint(directory) { (contents) throws(Failure) in
        let plan = try MetaPlan(parameters, contents)
        made = plan
        return plan.wholes
      }
      base = StoredTraining(consolidated: checkpoint, directory)
    } else {
      let stored = try StoredSafetensors(path: path)
      let plan = try MetaPlan(parameters, .init(tensors: stored.tensors, tied: [], fileCount: 1))
      made = plan
      base = ReducedCheckpoint(stored, without: Set(stored.tensors.indices).subtracting(plan.wholes.map(\.part)))
    }
    guard let made else { throw Failure(.internal, "no plan was made", file: path) }
    let others = [MetaParameters.fileName, Self.checksumsName].filter { directory.contains($0) }
    try self.init(
      base, made.weights, container: "consolidated", directory, fileNames: base.fileNames + others,
      warnings: base.warnings + made.warnings + Self.tokenizerWarnings(directory), config: made.config)
  }

  /// What loaders lack: Llama 3 has its tokenizer in a text of another program's, and those before say nowhere that a
  /// token begins each text.
  private static func tokenizerWarnings(_ directory: InputDirectory) throws(Failure) -> [Warning] {
    let settings = SideFiles.tokenizerSettings
    guard directory.contains(tokenizerName), !directory.contains("tokenizer.json"), !directory.contains(settings) else {
      return []
    }
    let file = try directory.open(tokenizerName)
    let line = try file.bytes(in: 0..<min(file.size, 256)).prefix { $0 != UInt8(ascii: "\n") }
    let isText = line.split(separator: UInt8(ascii: " ")).count == 2 && line.allSatisfy { (0x20..<0x7F).contains($0) }
    let hub = "that the model has on the Hugging Face hub"
    return [
      isText
        ? "\(names: [tokenizerName]) is copied as it is, for tiktoken; loaders also need the tokenizer.json \(hub)"
        : "\(names: [tokenizerName]) goes alone: without the \(settings) \(hub) loaders begin no text with a token"
    ]
  }
}
