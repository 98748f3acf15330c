/// Whether an entry of `llm_int8_skip_modules` makes a loader leave a module alone, as the two versions of
/// transformers decide it.
struct SkipMatcher {
  private var entries: Set<ArraySlice<UInt8>> = []
  private var lengths: Set<Int> = []
  let target: LoaderTarget

  init(target: LoaderTarget) { self.target = target }

  mutating func insert(_ entry: [UInt8]) {
    entries.insert(entry[...])
    lengths.insert(entry.count)
  }

  func matches(_ path: [UInt8]) -> Bool {
    if has(path[...]) { return true }
    switch target {
    case .transformers5:
      // From the start to the end of a component, or any end of the path, be it in the middle of a word.
      for cut in path.indices {
        if path[cut] == UInt8(ascii: "."), has(path[..<cut]) { return true }
        if has(path[cut...]) { return true }
      }
    case .transformers4:
      // The last component, or any run of bytes in front of a dot.
      if let last = path.components.last, has(last) { return true }
      for dot in path.indices where path[dot] == UInt8(ascii: ".") {
        for length in lengths where length <= dot && has(path[(dot - length)..<dot]) { return true }
      }
    }
    return false
  }

  private func has(_ part: ArraySlice<UInt8>) -> Bool { lengths.contains(part.count) && entries.contains(part) }

  /// Letters, digits, `_` and `-` in components between dots: what is no special character of a regular
  /// expression (the loader takes entries for one), and cannot match everything.
  static func isPlain(_ path: [UInt8]) -> Bool {
    path.components.allSatisfy { part in
      !part.isEmpty
        && part.allSatisfy {
          (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0)
            || $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: "-")
        }
    }
  }
}
