package import Bytes
package import Tensors

/// Names of a whole model that was saved through what trained it: `_orig_mod.model.norm.weight` of torch.compile,
/// `module.…` of DistributedDataParallel, `_fsdp_wrapped_module.…`, `_checkpoint_wrapped_module.…`, one in another.
///
/// No loader knows the words. The first three are attributes of no model; `module` is one of a wrapper when every name
/// begins with it.
package struct WrapperNames: Sendable {
  /// The names, one for each tensor.
  package let names: [TensorName]
  /// The words that were taken off, sorted.
  package let words: [String]
  package let count: Int

  private static let inner: Set<Substring> = ["_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module"]
  private static let outer: Substring = "module"

  /// nil when the names have none of these words.
  package init?(_ tensors: [TensorInfo]) {
    var words: Set<Substring> = []
    var parts = tensors.map { tensor -> [Substring] in
      let text = tensor.name.string
      let parts = text.split(separator: ".", omittingEmptySubsequences: false)
      if !text.utf8.contains(UInt8(ascii: "_")) { return parts }
      words.formUnion(parts.filter(Self.inner.contains))
      return parts.filter { !Self.inner.contains($0) }
    }
    while !parts.isEmpty, parts.allSatisfy({ $0.count > 1 && $0.first == Self.outer }) {
      words.insert(Self.outer)
      parts = parts.map { Array($0.dropFirst()) }
    }
    if words.isEmpty { return nil }
    names = parts.map { TensorName($0.joined(separator: ".")) }
    count = zip(names, tensors).count { $0 != $1.name }
    self.words = words.map(String.init).sorted()
  }

  /// - Throws: `malformed` when two tensors have the same name without the words, or one has none left.
  package func check(_ tensors: [TensorInfo]) throws(Failure) {
    var seen: [TensorName: Int] = [:]
    for (index, name) in names.enumerated() {
      if name.string.isEmpty {
        throw Failure(.malformed, "is only the words of training wrappers", tensor: tensors[index].name.string)
      }
      if let other = seen.updateValue(index, forKey: name) {
        throw Failure(
          .malformed,
          "is '\(name)' without the words of training wrappers, and so is '\(tensors[other].name)'; one of them must go",
          tensor: tensors[index].name.string)
      }
    }
  }

  package var text: String { words.map { "'\($0).'" }.joined(separator: ", ") }
}

/// A checkpoint under the names that the model has without the wrappers of its training.
package struct UnwrappedCheckpoint: WrappingCheckpoint {
  package let base: any StoredCheckpoint
  package let tensors: [TensorInfo]
  package let warnings: [Warning]
  private let positions: [TensorName: Int]

  /// nil when no name has a wrapper's word.
  package init?(_ base: any StoredCheckpoint) throws(Failure) {
    guard let wrapped = WrapperNames(base.tensors) else { return nil }
    try wrapped.check(base.tensors)
    var tensors: [TensorInfo] = []
    var positions: [TensorName: Int] = [:]
    for (info, name) in zip(base.tensors, wrapped.names) {
      positions[name] = tensors.count
      tensors.append(try TensorInfo(name: name, type: info.type, shape: info.shape))
    }
    self.base = base
    self.tensors = tensors
    self.positions = positions
    warnings =
      base.warnings + [
        "\(wrapped.count == 1 ? "1 name has" : "\(wrapped.count) names have") words of training wrappers, which are taken "
          + "off: \(wrapped.text)"
      ]
  }

  package func index(of name: TensorName) -> Int? { positions[name] }
  package func location(of index: Int) -> (file: String, offset: Int) { base.location(of: index) }
  package func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int)? { try base.place(of: index) }
  package func typeName(of index: Int) -> String { base.typeName(of: index) }
  package func storedByteCount(of index: Int) -> Int { base.storedByteCount(of: index) }

  package func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    try base.read(index, at: offset, into: &destination)
  }
}
