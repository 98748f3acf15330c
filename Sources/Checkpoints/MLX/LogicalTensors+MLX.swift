package import Bytes
import JSON
import Tensors

extension LogicalTensors {
  /// The tensors of a directory of MLX under the names that it has: a weight in groups is one.
  ///
  /// - Parameters:
  ///   - config: `config.json`, which says how wide the codes are.
  ///   - isLenient: collect faults in `problems` and list the parts of such a weight one by one, and those of a weight
  ///     whose format is not known here.
  /// - Returns: nil where no weight is in groups.
  /// - Throws: the first fault, unless lenient.
  init?(mlx checkpoint: any StoredCheckpoint, config: JSONValue?, isLenient: Bool = false) throws(Failure) {
    // What is wrong with them is of no account where nothing is in groups.
    guard MLXSettings.areStated(config), Self.hasGroups(checkpoint), let settings = try MLXSettings(config) else {
      return nil
    }
    let stored = checkpoint.tensors
    var weights: [Int: MLXWeight] = [:]
    var companions: Set<Int> = []
    var problems: [Failure] = []
    for index in stored.indices {
      do throws(Failure) {
        guard let weight = try Self.weight(index, settings, checkpoint) else { continue }
        weights[index] = weight
        companions.formUnion(weight.parts)
      } catch {
        if !isLenient { throw error }
        if error.code != .unsupported { problems.append(error) }
      }
    }
    let items = stored.indices.compactMap { index -> LogicalTensor? in
      if let weight = weights[index] { return .packed(weight) }
      return companions.contains(index) ? nil : .plain(index)
    }
    self.init(checkpoint: checkpoint, items: items, problems: problems)
  }

  /// For looking at a checkpoint, whatever is wrong with it.
  package init(lenient checkpoint: any StoredCheckpoint) throws(Failure) {
    if let directory = checkpoint.directory, directory.contains(StoredModel.configName) {
      // A configuration that cannot be read says nothing here; who needs it refuses it.
      let config = try? JSONValue(
        parsing: directory.open(StoredModel.configName).contents(limit: StoredModel.configLimit), .python,
        file: StoredModel.configName)
      do throws(Failure) {
        if let found = try LogicalTensors(mlx: checkpoint, config: config, isLenient: true) {
          self = found
          return
        }
      } catch {
        self = try LogicalTensors(checkpoint, isLenient: true).adding(error.code == .unsupported ? [] : [error])
        return
      }
    }
    self = try LogicalTensors(checkpoint, isLenient: true)
  }

  private func adding(_ more: [Failure]) -> LogicalTensors {
    LogicalTensors(checkpoint: checkpoint, items: items, problems: problems + more)
  }

  private static func hasGroups(_ checkpoint: any StoredCheckpoint) -> Bool {
    checkpoint.tensors.contains { tensor in
      guard let module = tensor.name.dropping(suffix: MLXWeight.suffix) else { return false }
      return tensor.type == .u32 || checkpoint.index(of: module + MLXWeight.scales) != nil
    }
  }

  /// - Returns: nil for a tensor that is no weight in groups.
  private static func weight(
    _ index: Int, _ settings: MLXSettings, _ checkpoint: any StoredCheckpoint
  ) throws(Failure) -> MLXWeight? {
    let info = checkpoint.tensors[index]
    func failure(_ text: String) -> Failure {
      Failure(.malformed, text, file: checkpoint.location(of: index).file, tensor: info.name.string)
    }
    if let module = info.name.dropping(suffix: MLXWeight.scales),
      checkpoint.index(of: module + MLXWeight.suffix) == nil
    {
      throw failure("are scales of a weight that is not there")
    }
    guard let module = info.name.dropping(suffix: MLXWeight.suffix) else { return nil }
    let hasScales = checkpoint.index(of: module + MLXWeight.scales) != nil
    if !hasScales, info.type != .u32 { return nil }
    guard let format = try settings.format(of: module.string) else {
      throw failure("is in groups, but config.json says that '\(module)' is not quantized")
    }
    return try MLXWeight(index, format, in: checkpoint)
  }
}
