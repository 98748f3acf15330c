/// One step from the names of a checkpoint to the names of the model's parameters.
///
/// The steps and the way they are applied are those of transformers' `core_model_loading.py`: a step
/// replaces the first occurrence of what it matched, and one that belongs to a part of the model sees
/// only the rest of the name behind that part's path.
struct Renaming: Sendable {
  enum Kind: Sendable, Equatable {
    case rename
    /// Pairs of pattern and replacement, of no effect unless the first pattern occurs in the checkpoint.
    case pairs
    /// The captured number is increased by this much.
    case shift(Int)
    /// Tensors are merged, split, permuted or transposed under way.
    case conversion
  }

  let kind: Kind
  /// nil: the whole name is seen; empty: what follows the base model's prefix; else a path below it.
  let scope: [UInt8]?
  let patterns: [NamePattern]
  let targets: [[UInt8]]

  /// The new name, with the index of the pattern that matched.
  func applied(to name: [UInt8], basePrefix: [UInt8]) -> (name: [UInt8], pattern: Int)? {
    guard patterns.contains(where: { $0.mayMatch(name) }) else { return nil }
    var skipped = 0
    if let scope {
      let dot = [UInt8(ascii: ".")]
      let part = scope.isEmpty ? [] : scope + dot
      let whole = basePrefix.isEmpty ? part : basePrefix + dot + part
      if name.starts(with: whole) {
        skipped = whole.count
      } else if name.starts(with: part) {
        skipped = part.count
      } else {
        return nil
      }
    }
    let seen = Array(name[skipped...])
    guard let (match, index) = firstMatch(in: seen) else { return nil }
    let group = match.group.map { Array(seen[$0]) } ?? []
    let target = kind == .pairs ? targets[index] : targets[0]
    let old = Array(seen[match.range])
    // As Python's str.replace(…, 1): the first occurrence, which need not be where the match was found.
    let at = seen.firstOccurrence(of: old) ?? match.range.lowerBound
    let new = seen[..<at] + filled(target, with: group) + seen[(at + old.count)...]
    return (Array(name[..<skipped] + new), index)
  }

  /// The other names that the conversion of `name` yields, when it splits a tensor.
  func siblings(of renamed: [UInt8]) -> [[UInt8]] {
    guard let first = targets.first, let at = renamed.firstOccurrence(of: first) else { return [renamed] }
    return targets.map { Array(renamed[..<at] + $0 + renamed[(at + first.count)...]) }
  }

  private func firstMatch(in text: [UInt8]) -> (NamePattern.Match, Int)? {
    for position in 0...text.count {
      for (index, pattern) in patterns.enumerated() {
        if let match = pattern.match(text, at: position) { return (match, index) }
      }
    }
    return nil
  }

  private func filled(_ target: [UInt8], with group: [UInt8]) -> [UInt8] {
    let mark = Array("\\1".utf8)
    guard let at = target.firstOccurrence(of: mark) else { return target }
    var value = group
    if case .shift(let step) = kind, let number = Int(String(decoding: group, as: UTF8.self)) {
      let (sum, overflowed) = number.addingReportingOverflow(step)
      if !overflowed { value = Array(String(sum).utf8) }
    }
    return Array(target[..<at] + value + target[(at + mark.count)...])
  }
}

extension [UInt8] {
  package func firstOccurrence(of part: [UInt8]) -> Int? {
    guard let head = part.first else { return 0 }
    var at = 0
    while at + part.count <= count {
      if self[at] == head, self[at..<(at + part.count)].elementsEqual(part) { return at }
      at += 1
    }
    return nil
  }

  /// The components between dots.
  var components: [ArraySlice<UInt8>] { split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false) }

  /// `*` for every component that is a whole number, and for the number of an `expert_1`.
  var generalised: [UInt8] {
    let star = UInt8(ascii: "*")
    let expert = Array("expert_".utf8)
    let parts = components.map { part -> ArraySlice<UInt8> in
      if part.isNumber { return [star] }
      return part.starts(with: expert) && part.dropFirst(expert.count).isNumber ? (expert + [star])[...] : part
    }
    return Array(parts.joined(separator: [UInt8(ascii: ".")]))
  }
}

extension ArraySlice<UInt8> {
  package var isNumber: Bool { !isEmpty && allSatisfy { (0x30...0x39).contains($0) } }
}
