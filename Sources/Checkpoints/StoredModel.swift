package import Architectures
public import Bytes
import GGUF
package import JSON
import ModelFamilies
import PackedWeights
package import Quantization
import Tensors

/// A model as it lies on disk: weights, configuration, and the files beside them.
public struct StoredModel: Sendable {
  package let checkpoint: any StoredCheckpoint
  /// The same as `checkpoint` for a model that lies in GGUF.
  package let gguf: GGUFModel?
  package let logical: LogicalTensors
  /// `config.json`; nil when a single file was named or the directory has none.
  package let config: JSONValue?
  /// Regular files of the directory, and of folders in it that belong to the model, that go along unchanged.
  package let sideFiles: [String]
  /// Names of directories and of other weights that do not go along.
  let leftBehind: [String]

  package static let configName = QuantizationSettings.fileName
  package static let configLimit = QuantizationSettings.fileLimit

  private let planned = Once<WeightPlan>()

  /// Files that go along and have to be made first.
  let makeSideFiles: @Sendable () throws(Failure) -> (files: [(name: String, contents: [UInt8])], warnings: [Warning])

  /// Reads headers, index and configuration, no weights. A GGUF model is read as the Hugging Face model that it was
  /// made from, and so is a directory that MLX or another method that is known here has quantized.
  public init(path: String) throws(Failure) { try self.init(CheckpointFiles(path: path)) }

  /// - Parameter blocksAs: what the block types of GGUF become.
  package init(_ files: CheckpointFiles, blocksAs type: FloatType = .bf16) throws(Failure) {
    switch files {
    case .safetensors(let stored): try self.init(stored, dequantizes: true)
    case .gguf(let values): self.init(try GGUFModel(values, blockType: type))
    case .pytorch(let stored): try self.init(repeating: stored)
    case .training(let stored):
      let adapter = try TrainedAdapter(stored)
      if let adapter { try self.init(adapter, dequantizes: false) } else { try self.init(repeating: stored) }
    case .planned(let stored): try self.init(stored, dequantizes: true)
    }
  }

  /// Safetensors under the names and in the form that they have, which are those of who quantized them.
  package init(stored files: CheckpointFiles) throws(Failure) {
    switch files {
    case .safetensors(let stored): try self.init(stored, dequantizes: false)
    case .gguf, .pytorch, .training, .planned: try self.init(files)
    }
  }

  private init(_ model: GGUFModel) {
    checkpoint = model
    gguf = model
    logical = LogicalTensors(plain: model)
    config = model.config
    sideFiles = []
    leftBehind = []
    makeSideFiles = { () throws(Failure) in try model.sideFiles() }
  }

  /// A GGUF model under its own names, without a configuration.
  package init(raw values: StoredGGUF) {
    checkpoint = values
    gguf = nil
    logical = LogicalTensors(plain: values)
    config = nil
    sideFiles = []
    leftBehind = []
    makeSideFiles = { ([], []) }
  }

  init(_ stored: any StoredCheckpoint, dequantizes: Bool) throws(Failure) {
    let hasConfig = stored.directory?.contains(Self.configName) == true
    let unwrapped = hasConfig ? try UnwrappedCheckpoint(stored) : nil
    let checkpoint: any StoredCheckpoint = unwrapped ?? stored
    gguf = nil
    makeSideFiles = { ([], []) }
    let logical = try LogicalTensors(checkpoint)
    guard let directory = checkpoint.directory else {
      (self.checkpoint, self.logical) = (checkpoint, logical)
      config = nil
      sideFiles = []
      leftBehind = []
      return
    }
    var side: [String] = []
    var left: [String] = []
    var folders: [String] = []
    var config = stored.madeConfig
    let weights = Set(checkpoint.fileNames)
    for (name, kind) in try directory.entries() {
      if name == Self.configName {
        let file = try directory.open(name)
        config = try JSONValue(parsing: file.contents(limit: Self.configLimit), .python, file: name)
        guard config?.object != nil else { throw Failure(.malformed, "is not a JSON object", file: name) }
      } else if kind == .directory {
        if !weights.contains(where: { $0.hasPrefix(name + "/") }) { folders.append(name) }
      } else if weights.contains(name) || Self.isOfTraining(name) {
        continue
      } else if kind == .other || Self.isWeights(name) {
        left.append(name)
      } else if !Self.isGenerated(name) {
        side.append(name)
      }
    }
    if dequantizes, let original = try DequantizedCheckpoint(checkpoint, config: config) {
      (self.checkpoint, self.logical) = (original, LogicalTensors(plain: original))
      self.config = original.config
      side.removeAll { original.settingsFiles.contains($0) }
    } else {
      (self.checkpoint, self.logical) = (checkpoint, logical)
      self.config = config
    }
    let documents = (side + [Self.configName]).filter { $0.hasSuffix(".json") && directory.contains($0) }
    let found = try ModelFolders(folders, of: directory, documents: documents)
    sideFiles = side + found.files
    leftBehind = (left + found.left).sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
  }

  /// Identities of the directories or files that the output may not be, nor contain.
  package var identities: [FileIdentity] {
    let directories = [checkpoint.directory, try? InputDirectory(path: checkpoint.path)].compactMap { $0?.identity }
    return InputDirectory.exists(at: checkpoint.path) ? directories : directories + checkpoint.identities
  }

  package func sideFile(_ name: String) throws(Failure) -> InputFile {
    guard let directory = checkpoint.directory else { throw Failure(.internal, "no directory", file: name) }
    return try directory.open(path: name)
  }

  /// The same failure with the file that holds its tensor, where it named none.
  package func located(_ failure: Failure) -> Failure {
    guard failure.file == nil, let tensor = failure.tensor, let index = checkpoint.index(of: TensorName(tensor)) else {
      return failure
    }
    return failure.located(file: checkpoint.location(of: index).file)
  }

  /// Weights as the model multiplies with them, counted.
  package var parameterCount: Int {
    logical.items.reduce(0) { sum, item in
      let (result, overflow) = sum.addingReportingOverflow(logical.info(item).elementCount)
      return overflow ? Int.max : result
    }
  }

  /// The part of `config.json` that decides which weights are linear layers.
  package var configuration: ModelConfiguration { config.map(ModelConfiguration.init) ?? ModelConfiguration() }

  /// The dtype to which a loader casts vectors; nil where they are stored in a type of their own choice.
  ///
  /// GGUF has them in F32 only. A loader takes those of a quantized checkpoint as they are, and cannot multiply what a
  /// norm in F32 gives out with the 16 bits of the output embedding.
  package var vectorType: FloatType? {
    gguf != nil ? config?["dtype"]?.string.flatMap(FloatType.init(torchName:)) : nil
  }

  /// Which of the logical tensors transformers would quantize.
  package var weightPlan: WeightPlan {
    planned.value {
      planWeights(logical.items.map(logical.info), configuration: configuration, target: .transformers5, keep: [])
    }
  }

  /// Positions of the weights of `Conv1D`, which lie transposed in a plain checkpoint.
  package var transposedWeights: Set<Int> {
    let plan = weightPlan
    return Set(plan.dispositions.indices.filter { plan.dispositions[$0] == .quantizeTransposed })
  }

  /// Warnings that hold for any use of this model as a source.
  package var warnings: [Warning] {
    var warnings = checkpoint.warnings
    let code = sideFiles.filter { $0.hasSuffix(".py") }
    if !code.isEmpty {
      warnings.append("copied without being read: \(names: code), code that a loader runs with trust_remote_code")
    }
    let pointers = sideFiles.filter(isPointer)
    if !pointers.isEmpty {
      warnings.append("copied, but only Git LFS pointers ('git lfs pull' fetches the files): \(names: pointers)")
    }
    if !leftBehind.isEmpty { warnings.append("not copied: \(names: leftBehind)") }
    if checkpoint.directory != nil, config == nil, !isAdapter {
      warnings.append(
        "there is no config.json, by which a loader knows the model (--config names a directory with one)")
    }
    return warnings
  }

  private func isPointer(_ name: String) -> Bool {
    guard let file = try? sideFile(name), file.size < 1024, let bytes = try? file.bytes(in: 0..<file.size) else {
      return false
    }
    return bytes.starts(with: "version https://git-lfs".utf8)
  }

  package static func list(_ names: [String]) -> String {
    let shown = names.prefix(8).map { "'\($0)'" }.joined(separator: ", ")
    return names.count > 8 ? "\(shown) and \(names.count - 8) more" : shown
  }
}
