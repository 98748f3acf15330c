/// Parts that take one of two forms, and lists within layers.
extension ContentsCheck {
  /// One of two groups is there in all numbers, or in those that have what is beside them.
  ///
  /// - Parameter instances: the numbers that the container has.
  mutating func checkChoice(_ choice: ClassContents.Choice, _ groups: [Int: [[UInt8]]], _ instances: [[Int]]) {
    var (first, second) = (groups[choice.groups.0] ?? [], groups[choice.groups.1] ?? [])
    // The form that the other layers have is the one that is missed.
    if !first.contains(where: { present[$0] != nil }) { swap(&first, &second) }
    guard let name = first.first, let other = second.first else { return }
    let there = Set((first + second).flatMap { present[$0].map { Array($0.keys) } ?? [] })
    guard let beside = choice.beside else {
      guard let missing = instances.first(where: { !there.contains($0) }) else { return }
      return addNeither(name, other, missing, "\(architecture) has one of them in every layer")
    }
    let places = present[beside] ?? [:]
    if let missing = instances.first(where: { places[$0] != nil && !there.contains($0) }) {
      addNeither(name, other, missing, "one of them goes with '\(filled(beside, missing))'")
    }
    if let missing = instances.first(where: { places[$0] == nil && there.contains($0) }) {
      let tensor = filled(beside, missing)
      if report.faults.contains(where: { $0.tensor == tensor }) { return }
      add(tensor, "is missing: others that go with it are there")
    }
  }

  private mutating func addNeither(_ name: [UInt8], _ other: [UInt8], _ missing: [Int], _ reason: String) {
    add(filled(name, missing), "is missing, and so is '\(filled(other, missing))': \(reason)")
  }

  /// Lists within layers are as long as the configuration says: of each, the first number that is not there.
  func addGaps(_ instances: inout Set<[Int]>, _ count: Int) {
    for (outer, numbers) in Dictionary(grouping: instances, by: { Array($0.dropLast()) }) {
      guard let gap = (0...numbers.count).first(where: { !numbers.contains(outer + [$0]) }), gap < count else {
        continue
      }
      instances.insert(outer + [gap])
    }
  }
}
