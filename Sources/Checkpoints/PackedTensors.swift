package import Bytes
import JSON
import PackedWeights
import Tensors

/// The tensors of a quantized checkpoint under the names that it has: a packed weight is one.
struct PackedTensors: Sendable {
  let layout: any PackedLayout
  /// With `isLenient`, the parts of a faulty weight and what is left out are listed one by one.
  let logical: LogicalTensors
  /// Tensors that are no part of the model.
  let leftOut: [TensorName]

  /// - Parameters:
  ///   - config: `config.json`, which says how weights are packed.
  ///   - isLenient: collect faults as problems of `logical`, but those of a weight whose format is not known here.
  /// - Returns: nil where no weight is packed in a way that is known here.
  /// - Throws: the first fault, unless lenient.
  init?(_ checkpoint: any StoredCheckpoint, config: JSONValue?, isLenient: Bool = false) throws(Failure) {
    guard let layout = try Self.layout(config, checkpoint) else { return nil }
    let stored = checkpoint.tensors
    var weights: [Int: any PackedWeight] = [:]
    var companions: Set<Int> = []
    var problems: [Failure] = []
    // Whose other parts are told of no more.
    var faulty: Set<Substring> = []
    func attempt(_ index: Int, _ body: () throws(Failure) -> Void) throws(Failure) {
      do throws(Failure) { try body() } catch {
        let failure = error.located(file: checkpoint.location(of: index).file, tensor: stored[index].name.string)
        if !isLenient { throw failure }
        if error.code != .unsupported { problems.append(failure) }
        faulty.insert(Self.module(stored[index]))
      }
    }
    for index in stored.indices {
      try attempt(index) { () throws(Failure) in
        guard let weight = try layout.weight(index, in: checkpoint) else { return }
        weights[index] = weight
        companions.formUnion(weight.parts)
      }
    }
    // Of no account where nothing is packed: who reads the settings refuses the method by its name.
    guard !weights.isEmpty || !faulty.isEmpty else { return nil }
    var items: [LogicalTensor] = []
    var leftOut: [TensorName] = []
    for index in stored.indices {
      if let weight = weights[index] {
        items.append(.packed(weight))
      } else if !companions.contains(index) {
        let remainder = layout.remainder(index, in: checkpoint)
        if remainder == .leftOut { leftOut.append(stored[index].name) }
        if remainder == .plain || isLenient { items.append(.plain(index)) }
        if remainder == .plain, stored[index].type.isCode {
          try attempt(index) { () throws(Failure) in
            throw Failure(
              .malformed, "is \(stored[index].type.name), and no weight of \(layout.name) that is known here")
          }
        }
        if remainder == .orphan, !faulty.contains(Self.module(stored[index])) {
          try attempt(index) { () throws(Failure) in
            throw Failure(.malformed, "is part of a weight in \(layout.name) that is not there")
          }
        }
      }
    }
    self.layout = layout
    self.logical = LogicalTensors(checkpoint: checkpoint, items: items, problems: problems)
    self.leftOut = leftOut
  }

  /// The path of the module whose parameter, or part of one, a tensor is.
  private static func module(_ info: TensorInfo) -> Substring {
    let name = info.name.string
    return name[..<(name.lastIndex(of: ".") ?? name.startIndex)]
  }

  private static func layout(
    _ config: JSONValue?, _ checkpoint: any StoredCheckpoint
  ) throws(Failure) -> (any PackedLayout)? {
    for type in packedLayouts {
      if let layout = try type.init(config, of: checkpoint) { return layout }
    }
    return nil
  }
}

extension LogicalTensors {
  /// For looking at a checkpoint, whatever is wrong with it.
  package init(lenient checkpoint: any StoredCheckpoint) throws(Failure) {
    if let directory = checkpoint.directory, directory.contains(StoredModel.configName) {
      // A configuration that cannot be read says nothing here; who needs it refuses it.
      let config = try? JSONValue(
        parsing: directory.open(StoredModel.configName).contents(limit: StoredModel.configLimit), .python,
        file: StoredModel.configName)
      do throws(Failure) {
        if let found = try PackedTensors(checkpoint, config: config, isLenient: true) {
          self = found.logical
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
}

extension ElementType {
  /// Whether elements are floating-point numbers of 8 bits or less, which mean nothing without a scale.
  fileprivate var isCode: Bool {
    switch self {
    case .f4, .f6e2m3, .f6e3m2, .f8e4m3, .f8e5m2, .f8e8m0, .f8e4m3fnuz, .f8e5m2fnuz: true
    default: false
    }
  }
}
