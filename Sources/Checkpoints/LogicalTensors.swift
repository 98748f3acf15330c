package import Bytes
package import PackedWeights
package import Tensors

/// One tensor as a user thinks of it: a packed weight counts as one, whatever it is stored in.
package enum LogicalTensor: Sendable {
  case plain(Int)
  case packed(any PackedWeight)

  package var isPacked: Bool { packed != nil }

  package var packed: (any PackedWeight)? {
    if case .packed(let weight) = self { weight } else { nil }
  }

  /// The weight in 4 bits of bitsandbytes that it is.
  package var fourBit: FourBitWeight? { packed as? FourBitWeight }

  /// Position of the stored tensor that holds its values.
  package var payload: Int {
    switch self {
    case .plain(let index): index
    case .packed(let weight): weight.payload
    }
  }
}

/// The logical tensors of a checkpoint, in the order of storage.
package struct LogicalTensors: Sendable {
  package let checkpoint: any StoredCheckpoint
  package let items: [LogicalTensor]
  /// Weights whose parts do not fit together; only with `lenient`.
  package let problems: [Failure]

  package init(checkpoint: any StoredCheckpoint, items: [LogicalTensor], problems: [Failure]) {
    self.checkpoint = checkpoint
    self.items = items
    self.problems = problems
  }

  /// Takes every stored tensor as a logical tensor of its own, packed or not.
  package init(plain checkpoint: any StoredCheckpoint) {
    self.init(checkpoint: checkpoint, items: checkpoint.tensors.indices.map(LogicalTensor.plain), problems: [])
  }

  /// - Parameter isLenient: collect faults in `problems` and list the parts of such a weight one by one.
  /// - Throws: the first fault, unless lenient.
  package init(_ checkpoint: any StoredCheckpoint, isLenient: Bool = false) throws(Failure) {
    let stored = checkpoint.tensors
    var weights: [Int: FourBitWeight] = [:]
    var companions: Set<Int> = []
    var problems: [Failure] = []
    for (index, tensor) in stored.enumerated() where FourBitWeight.weight(ofState: tensor.name) != nil {
      do throws(Failure) {
        let weight = try FourBitWeight(index, in: checkpoint)
        if weights[weight.codes] != nil {
          throw Failure(.malformed, "has two quant_states", tensor: weight.info.name.string)
        }
        weights[weight.codes] = weight
        companions.formUnion(weight.parts)
      } catch {
        if !isLenient { throw error }
        problems.append(error)
      }
    }
    let items = stored.indices.compactMap { index -> LogicalTensor? in
      if let weight = weights[index] { return .packed(weight) }
      return companions.contains(index) ? nil : .plain(index)
    }
    self.init(checkpoint: checkpoint, items: items, problems: problems)
  }

  package func isPacked(_ index: Int) -> Bool { items[index].isPacked }

  package var hasFourBitWeights: Bool {
    items.contains { $0.fourBit != nil }
  }

  package func info(_ item: LogicalTensor) -> TensorInfo {
    switch item {
    case .plain(let index): checkpoint.tensors[index]
    case .packed(let weight): weight.info
    }
  }

  /// Bytes on disk.
  package func byteCount(_ item: LogicalTensor) -> Int {
    switch item {
    case .plain(let index): checkpoint.storedByteCount(of: index)
    case .packed(let weight): weight.parts.reduce(0) { $0 + checkpoint.storedByteCount(of: $1) }
    }
  }
}
