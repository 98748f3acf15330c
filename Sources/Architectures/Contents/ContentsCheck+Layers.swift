import Bytes
import Tensors

/// Checks for layers with tensors of no use, and for layers that differ from each other.
extension ContentsCheck {
  /// Biases that the configuration turns off, and layers beyond those that it counts.
  mutating func addSurplus(_ member: (String) -> Int?) {
    var off: Set<Int> = []
    var beyond: Set<Int> = []
    var counts: Set<String> = []
    for (pattern, numbers, index) in placements {
      if let layer = numbers.first, let name = contents.counts[pattern.firstStack], let count = member(name),
        layer >= count
      {
        beyond.insert(index)
        counts.insert(name)
      } else if let found = contents.switches[pattern], tensors[index].elementCount > 0 {
        let isOn = member(found.member).map { $0 != 0 } ?? found.isOnByDefault
        if isOn == false { off.insert(index) }
      }
    }
    if contents.isWhole { report.unused += off.sorted().map { tensors[$0].name.string } }
    if !beyond.isEmpty {
      let names = beyond.sorted().map { tensors[$0].name.string }
      report.warnings.append(
        "\(names.count) tensors are in layers beyond those that \(counts.sorted().joined(separator: " and ")) counts, "
          + "and loaders leave them out: \(names: names)")
    }
  }

  /// Dimensions that the configuration does not tell are held to those of the other layers.
  func unevenShapes() -> Warning? {
    // By pattern and the numbers after the layer's.
    var members: [[UInt8]: [[Int]: [Int: Int]]] = [:]
    for (pattern, numbers, index) in placements {
      // What is numbered and not counted is no stack of layers: each may be another module.
      guard let layer = numbers.first, contents.counts[pattern.firstStack] != nil,
        let shape = contents.parameters[pattern]?.shape, !shape.contains(where: \.variesByLayer)
      else { continue }
      members[pattern, default: [:]][Array(numbers.dropFirst()), default: [:]][layer] = index
    }
    var names: [String] = []
    for (pattern, positions) in members.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
      // Experts that are put together have been looked at.
      for (_, layers) in positions.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) })
      where experts.isEmpty || !pattern.contains(".experts.") {
        let shapes = layers.mapValues { tensors[$0].shape }
        // A few that differ: many would be another kind of layer.
        let counted = Dictionary(grouping: shapes, by: \.value).map { shape, layers in
          (shape: shape, count: layers.count, first: layers.map(\.key).min() ?? 0)
        }
        guard counted.count > 1, let most = counted.max(by: { ($0.count, $1.first) < ($1.count, $0.first) }),
          counted.allSatisfy({ $0.shape.count == most.shape.count }),
          layers.count - most.count <= max(1, layers.count / 4)
        else { continue }
        let others = layers.filter { shapes[$0.key] != most.shape }.sorted { $0.key < $1.key }
        names += others.map { tensors[$0.value].name.string }
      }
    }
    let faulty = Set(report.faults.map(\.tensor))
    names.removeAll { faulty.contains($0) }
    return names.isEmpty ? nil : "tensors whose shape is not that of the other layers: \(names: names)"
  }

  /// The name that the parameter has in the class.
  func name(of pattern: [UInt8], _ numbers: [Int]) -> [UInt8] {
    var left = numbers[...]
    let parts = pattern.components.map { part -> [UInt8] in
      guard part.last == UInt8(ascii: "*"), let number = left.popFirst() else { return Array(part) }
      return part.dropLast() + Array(String(number).utf8)
    }
    return Array(parts.joined(separator: [UInt8(ascii: ".")]))
  }
}

extension [UInt8] {
  /// The path in front of the first number.
  var firstStack: [UInt8] {
    let parts = components
    let first = parts.firstIndex { $0.last == UInt8(ascii: "*") } ?? 0
    return Array(parts[..<first].joined(separator: [UInt8(ascii: ".")]))
  }

  fileprivate func contains(_ part: String) -> Bool { firstOccurrence(of: Array(part.utf8)) != nil }
}
