import Adapters
package import Bytes
import GGUF
import PyTorch

/// The kind of model files at a path, told from their content and never from the ending of a name.
package enum CheckpointFormat: Sendable, Equatable {
  /// A file that is no other of these. Opening it says what it is when it is no safetensors.
  case safetensorsFile
  /// A directory of safetensors files, or of nothing known: opening it says what it lacks. A snapshot of the Hugging
  /// Face cache is one.
  case safetensorsDirectory
  /// A directory with a PEFT adapter in it and no model.
  case adapterDirectory
  /// A directory with an adapter of mlx-lm in it and none of PEFT.
  case mlxAdapterDirectory
  /// A file of `torch.save`.
  case pytorchFile
  /// A directory that holds files of `torch.save` and neither safetensors nor GGUF.
  case pytorchDirectory
  /// A directory of DeepSpeed's ZeRO, which may be one of the Trainer.
  case deepSpeedDirectory
  /// A directory of `torch.distributed.checkpoint`, or one of the Trainer with such a directory in it.
  case distributedDirectory
  /// A directory of Meta's or Mistral's own, with no files of transformers beside them.
  case consolidatedDirectory
  /// A directory of files of `torch.save` that ranks have saved one by one, or a step of verl with such a directory.
  case rankedDirectory
  case ggufFile
  /// A directory that holds GGUF files and no safetensors.
  case ggufDirectory
  /// A configuration in JSON.
  case configurationFile
  /// A directory with a configuration and no weights.
  case configurationDirectory

  /// - Throws: `missing` when there is nothing; for the name of a model of the Hugging Face hub, where it is.
  package static func detect(_ path: String) throws(Failure) -> CheckpointFormat {
    guard InputDirectory.exists(at: path) else {
      let file = try HubCache.openModel(at: path)
      if try GGUFHeader.isGGUF(file) { return .ggufFile }
      if try PyTorchArchive.isLikely(file) { return .pytorchFile }
      return try isObject(file) ? .configurationFile : .safetensorsFile
    }
    let directory = try InputDirectory(path: path)
    let names = try directory.names().filter { !$0.hasPrefix(".") }
    let own = PlannedCheckpoint.metaFiles(among: names)
    let others = names.filter { !own.contains($0) }
    let weights = others.filter { $0.hasSuffix(".safetensors") || $0.hasSuffix(".safetensors.index.json") }
    // mlx-lm leaves what it saved on the way beside it, `0000100_adapters.safetensors`.
    if names.contains(Adapter.configName), weights.contains(PlannedCheckpoint.mlxAdapterName),
      weights.allSatisfy({ $0.hasSuffix(PlannedCheckpoint.mlxAdapterName) })
    {
      return names.contains(Adapter.pickleName) ? .adapterDirectory : .mlxAdapterDirectory
    }
    if weights.isEmpty {
      // Beside a model's own weights it is one that the model was merged with, or is yet to be.
      if names.contains(Adapter.configName), names.contains(Adapter.pickleName),
        !PyTorchCheckpoint.isModelThere(among: names)
      {
        return .adapterDirectory
      }
      if names.contains(where: { $0.hasSuffix(".gguf") }) { return .ggufDirectory }
      if !own.isEmpty, !PyTorchCheckpoint.isThere(among: others) { return .consolidatedDirectory }
      if try ZeROCheckpoint.isThere(in: directory) { return .deepSpeedDirectory }
      if try StoredTraining.isDistributed(directory) { return .distributedDirectory }
      if try StoredTraining.isRanked(directory) { return .rankedDirectory }
      if PyTorchCheckpoint.isThere(among: names) { return .pytorchDirectory }
      return names.contains(StoredModel.configName) ? .configurationDirectory : .safetensorsDirectory
    }
    if try ShardingInfo.isThere(in: directory) { return .distributedDirectory }
    return names.contains(Adapter.configName) && weights == [Adapter.weightsName]
      ? .adapterDirectory : .safetensorsDirectory
  }

  package var isGGUF: Bool { self == .ggufFile || self == .ggufDirectory }

  /// Whether it is a directory whose files of safetensors are a checkpoint as they lie there.
  package var holdsSafetensors: Bool { self == .safetensorsDirectory || self == .adapterDirectory }

  /// What processes have saved, each its part.
  var isTraining: Bool { [.distributedDirectory, .rankedDirectory, .deepSpeedDirectory].contains(self) }

  package var isDirectory: Bool {
    switch self {
    case .safetensorsDirectory, .adapterDirectory, .mlxAdapterDirectory, .pytorchDirectory, .distributedDirectory,
      .deepSpeedDirectory, .rankedDirectory, .consolidatedDirectory, .ggufDirectory, .configurationDirectory:
      true
    case .safetensorsFile, .pytorchFile, .ggufFile, .configurationFile: false
    }
  }

  /// Safetensors begin with a header's length, of which the last of eight bytes is 0: no text has that.
  private static func isObject(_ file: InputFile) throws(Failure) -> Bool {
    let first = try file.bytes(in: 0..<min(file.size, 8))
    return !first.contains(0) && first.first { ![9, 10, 13, 32].contains($0) } == UInt8(ascii: "{")
  }
}

/// The files of a checkpoint, their headers read once.
package enum CheckpointFiles: Sendable {
  case safetensors(StoredSafetensors)
  case gguf(StoredGGUF)
  case pytorch(StoredPyTorch)
  case training(StoredTraining)
  /// In another program's form.
  case planned(PlannedCheckpoint)

  /// - Parameter config: a directory that has the model's configuration and what else goes along with it; nil for the
  ///   one that the files lie in.
  /// - Throws: what `CheckpointFormat.detect` and reading the headers throw; `usage` for a model that has its
  ///   configuration in its files.
  package init(path: String, config: String? = nil) throws(Failure) {
    try self.init(path: path, CheckpointFormat.detect(path), config: config)
  }

  package init(path: String, _ format: CheckpointFormat, config: String?) throws(Failure) {
    try self.init(path: path, format)
    guard let config else { return }
    guard !checkpoint.isAdapter else {
      throw Failure(.usage, "option '--config' is for models: the configuration of an adapter lies beside it")
    }
    let directory = try InputDirectory(path: config)
    guard directory.contains(StoredModel.configName) else {
      throw Failure(.missing, "has no \(StoredModel.configName), for which '--config' names it", file: config)
    }
    switch self {
    case .safetensors(var stored):
      stored.configured = directory
      self = .safetensors(stored)
    case .pytorch(var stored):
      stored.configured = directory
      self = .pytorch(stored)
    case .training(var stored):
      stored.configure(directory)
      self = .training(stored)
    case .gguf: throw Failure(.usage, "option '--config' is for other files: GGUF has the configuration in itself")
    case .planned: throw Failure(.usage, "option '--config' is for other files: these have their own params.json")
    }
  }

  package init(path: String, _ format: CheckpointFormat) throws(Failure) {
    switch format {
    case .ggufFile, .ggufDirectory: self = .gguf(try StoredGGUF(path: path))
    case .deepSpeedDirectory: self = .training(try StoredTraining(deepSpeed: path))
    case .distributedDirectory: self = .training(try StoredTraining(distributed: path))
    case .mlxAdapterDirectory: self = .planned(try PlannedCheckpoint(mlxAdapter: path))
    case .consolidatedDirectory: self = .planned(try PlannedCheckpoint(meta: path))
    case .rankedDirectory: self = .training(try StoredTraining(ranked: path))
    case .pytorchFile, .pytorchDirectory: self = .pytorch(try StoredPyTorch(path: path))
    case .adapterDirectory:
      let isSafetensors = try InputDirectory(path: path).contains(Adapter.weightsName)
      self = isSafetensors ? .safetensors(try StoredSafetensors(path: path)) : .pytorch(try StoredPyTorch(path: path))
    case .safetensorsFile, .configurationFile: self = .safetensors(try StoredSafetensors(path: path))
    case .safetensorsDirectory, .configurationDirectory:
      do throws(Failure) { self = .safetensors(try StoredSafetensors(path: path)) } catch {
        throw error.code == .missing ? RunFolders.failure(at: path) ?? error : error
      }
    }
  }

  /// The tensors under the names that they have there.
  package var checkpoint: any StoredCheckpoint {
    switch self {
    case .safetensors(let stored): stored
    case .gguf(let values): values
    case .pytorch(let stored): stored
    case .training(let stored): stored
    case .planned(let stored): stored
    }
  }

  package var gguf: StoredGGUF? {
    if case .gguf(let values) = self { values } else { nil }
  }

  package var safetensors: StoredSafetensors? {
    if case .safetensors(let stored) = self { stored } else { nil }
  }

  package var planned: PlannedCheckpoint? {
    if case .planned(let stored) = self { stored } else { nil }
  }

  package var pytorch: StoredPyTorch? {
    if case .pytorch(let stored) = self { stored } else { nil }
  }
}
