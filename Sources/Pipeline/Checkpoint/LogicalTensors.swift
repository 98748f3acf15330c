import Bytes
import Safetensors
import Tensors

/// One tensor as a user thinks of it: a packed weight counts as one, whatever it is stored in.
enum LogicalTensor: Sendable {
  case plain(Int)
  case packed(any PackedWeight)

  var isPacked: Bool { packed != nil }

  var packed: (any PackedWeight)? {
    if case .packed(let weight) = self { weight } else { nil }
  }

  /// The weight in 4 bits of bitsandbytes that it is.
  var fourBit: FourBitWeight? { packed as? FourBitWeight }

  /// Position of the stored tensor that holds its values.
  var payload: Int {
    switch self {
    case .plain(let index): index
    case .packed(let weight): weight.payload
    }
  }
}

/// The logical tensors of a checkpoint, in the order of storage.
struct LogicalTensors: Sendable {
  let checkpoint: any StoredCheckpoint
  let items: [LogicalTensor]
  /// Weights whose parts do not fit together; only with `lenient`.
  let problems: [Failure]

  init(checkpoint: any StoredCheckpoint, items: [LogicalTensor], problems: [Failure]) {
    self.checkpoint = checkpoint
    self.items = items
    self.problems = problems
  }

  /// - Parameter isLenient: collect faults in `problems` and list the parts of such a weight one by one.
  /// - Throws: the first fault, unless lenient.
  init(_ checkpoint: any StoredCheckpoint, isLenient: Bool = false) throws(Failure) {
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

  func isPacked(_ index: Int) -> Bool { items[index].isPacked }

  var hasFourBitWeights: Bool {
    items.contains { $0.fourBit != nil }
  }

  func info(_ item: LogicalTensor) -> TensorInfo {
    switch item {
    case .plain(let index): checkpoint.tensors[index]
    case .packed(let weight): weight.info
    }
  }

  /// Bytes on disk.
  func byteCount(_ item: LogicalTensor) -> Int {
    switch item {
    case .plain(let index): checkpoint.storedByteCount(of: index)
    case .packed(let weight): weight.parts.reduce(0) { $0 + checkpoint.storedByteCount(of: $1) }
    }
  }
}
