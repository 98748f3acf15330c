/// The modules of a model, and the lists of them that an adapter's configuration holds. PEFT takes an entry for
/// every module whose path ends with it.
package struct ModuleNames: Sendable {
  /// Modules and what contains them, by path.
  package let all: Set<String>
  /// The parameters of each module that holds some itself.
  package let parameters: [String: Set<String>]

  package init(parameters names: some Sequence<String>) {
    var all: Set<String> = []
    var parameters: [String: Set<String>] = [:]
    for name in names {
      var path = Substring(name)
      while let dot = path.lastIndex(of: ".") {
        if path.endIndex == name.endIndex {
          parameters[String(path[..<dot]), default: []].insert(String(path[path.index(after: dot)...]))
        }
        path = path[..<dot]
        all.insert(String(path))
      }
    }
    self.all = all
    self.parameters = parameters
  }

  /// Whether nothing but a weight, and perhaps a bias, belongs to a module.
  package func isLeaf(_ path: String) -> Bool {
    guard let own = parameters[path], own.isSubset(of: ["weight", "bias"]) else { return false }
    return !all.contains { $0.hasPrefix(path + ".") }
  }

  /// How PEFT compares an entry with a path.
  package enum Rule: Sendable {
    /// `target_modules`: the same, or the end behind a dot.
    case component
    /// `modules_to_save`: the end, wherever it begins.
    case ending

    func matches(_ path: String, _ entry: String) -> Bool {
      switch self {
      case .component: path == entry || path.hasSuffix("." + entry)
      case .ending: path.hasSuffix(entry)
      }
    }
  }

  /// Entries that stand for these modules and no others: a module's own name where all modules of that name are
  /// meant, else its path; sorted. Nil when a path is the end of another one's that is not meant.
  package func entries(for paths: Set<String>, _ rule: Rule) -> [String]? {
    var entries: Set<String> = []
    var verdicts: [String: Bool] = [:]
    for path in paths {
      let name = path.split(separator: ".").last.map(String.init) ?? path
      let isCommon =
        verdicts[name]
        ?? (Int(name) == nil && all.allSatisfy { !rule.matches($0, name) || paths.contains($0) })
      verdicts[name] = isCommon
      guard isCommon || all.allSatisfy({ !rule.matches($0, path) || paths.contains($0) }) else { return nil }
      entries.insert(isCommon ? name : path)
    }
    return entries.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
  }
}
