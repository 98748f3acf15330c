package import Bytes
package import Checkpoints
import PackedWeights
package import Patterns
package import Tensors

/// Two checkpoints side by side, their logical tensors matched by name; from headers alone.
package struct CheckpointPair: Sendable {
  package let a: ComparedCheckpoint
  package let b: ComparedCheckpoint
  /// Tensors of the same name, as positions among the logical tensors of each, in the order of A.
  package let common: [(a: Int, b: Int)]
  /// Names of the tensors that only one of the two has, sorted.
  package let onlyInA: [TensorName]
  package let onlyInB: [TensorName]

  /// - Parameter pattern: of the names that count; nil for all.
  /// - Throws: what opening a checkpoint throws; `missing` when the pattern matches no name.
  package init(_ aPath: String, _ bPath: String, matching pattern: Glob?) throws(Failure) {
    // Two of one kind are compared under the names they share; otherwise the GGUF model takes the other's.
    let (a, b) = (try ComparedCheckpoint.open(aPath), try ComparedCheckpoint.open(bPath))
    let isRaw = a.gguf != nil && b.gguf != nil
    let originalA = try ComparedCheckpoint.original(a, isRaw: isRaw)
    let originalB = try ComparedCheckpoint.original(b, isRaw: isRaw)
    func keys(_ original: OriginalModel) -> [TensorName?] {
      original.values.tensors.map { pattern?.matches($0.name.string) ?? true ? $0.name : nil }
    }
    try self.init(
      (originalA, path: aPath, keys: keys(originalA)), (originalB, path: bPath, keys: keys(originalB)))
    if let pattern, common.isEmpty, onlyInA.isEmpty, onlyInB.isEmpty {
      throw Failure(.missing, "no tensor of either checkpoint matches '\(pattern.text)'")
    }
  }

  /// - Parameters:
  ///   - a, b: keys are what the tensors are matched by, one for each and none twice; nil for one that does not
  ///     count.
  package init(
    _ a: (original: OriginalModel, path: String, keys: [TensorName?]),
    _ b: (original: OriginalModel, path: String, keys: [TensorName?])
  ) throws(Failure) {
    var positions: [TensorName: Int] = [:]
    for (index, key) in b.keys.enumerated() {
      if let key { positions[key] = index }
    }
    var common: [(a: Int, b: Int)] = []
    var onlyInA: [TensorName] = []
    var turnedA: Set<Int> = []
    var turnedB: Set<Int> = []
    for (index, key) in a.keys.enumerated() {
      guard let key else { continue }
      guard let other = positions.removeValue(forKey: key) else {
        onlyInA.append(a.original.values.tensors[index].name)
        continue
      }
      common.append((index, other))
      switch (a.original.values.isPacked(index), b.original.values.isPacked(other)) {
      case (false, true):
        if a.original.isTurned(index, beside: b.original, other) { turnedA.insert(index) }
      case (true, false):
        if b.original.isTurned(other, beside: a.original, index) { turnedB.insert(other) }
      default: break
      }
    }
    self.common = common
    self.onlyInA = onlyInA.sorted()
    onlyInB = positions.values.map { b.original.values.tensors[$0].name }.sorted()
    self.a = try ComparedCheckpoint(a.original, path: a.path, turned: turnedA)
    self.b = try ComparedCheckpoint(b.original, path: b.path, turned: turnedB)
  }

  package var warnings: [Warning] {
    if a.isSame(as: b) { return a.warnings + ["\(a.path) and \(b.path) are the same files"] }
    return a.warnings + b.warnings
  }

  package func infos(_ position: Int) -> (a: TensorInfo, b: TensorInfo) {
    (a.source.tensors[common[position].a], b.source.tensors[common[position].b])
  }

  /// Bytes of both tensors together in their files.
  package func storedByteCount(_ position: Int) -> Int {
    a.source.storedByteCount(of: common[position].a).addingSaturated(b.source.storedByteCount(of: common[position].b))
  }

  func typeNames(_ position: Int) -> (a: String, b: String) {
    (a.typeName(common[position].a), b.typeName(common[position].b))
  }

  /// Stored tensors of A and B which, when their bytes are the same, make the two tensors the same; nil
  /// when the two are stored in ways that only their values can be compared in.
  package func storedParts(_ position: Int) -> [(a: Int, b: Int)]? {
    let (itemA, itemB) = (a.logical.items[common[position].a], b.logical.items[common[position].b])
    switch (itemA, itemB) {
    case (.plain(let left), .plain(let right)):
      let infos = (a.checkpoint.tensors[left], b.checkpoint.tensors[right])
      guard infos.0.type == infos.1.type, infos.0.shape == infos.1.shape else { return nil }
      // What is quantized is no copy of the values that it stands for.
      let isDequantized = a.checkpoint.dequantizes != nil || b.checkpoint.dequantizes != nil
      let types = typeNames(position)
      return isDequantized && types.a != types.b ? nil : [(left, right)]
    case (.packed, .packed):
      guard let left = itemA.fourBit, let right = itemB.fourBit, left.state == right.state else { return nil }
      // The quant_map is not asked: what it says follows from the code.
      let optional = [(left.nestedAbsmax, right.nestedAbsmax), (left.nestedQuantMap, right.nestedQuantMap)]
      var parts: [(a: Int, b: Int)] = [(left.codes, right.codes), (left.absmax, right.absmax)]
      for case (let left?, let right?) in optional { parts.append((left, right)) }
      let isSameSize = parts.allSatisfy { a.checkpoint.tensors[$0].byteCount == b.checkpoint.tensors[$1].byteCount }
      return isSameSize ? parts : nil
    default: return nil
    }
  }
}

extension OriginalModel {
  /// Whether plain tensor `index` lies the other way round than the same weight in a checkpoint where it
  /// is 4-bit. Either checkpoint's configuration may tell.
  fileprivate func isTurned(_ index: Int, beside other: OriginalModel, _ otherIndex: Int) -> Bool {
    let isConv1D = conv1D.contains(index) || other.conv1D.contains(otherIndex)
    return isTurned(index, against: other.values.tensors[otherIndex].shape, isConv1D: isConv1D) ?? false
  }
}
