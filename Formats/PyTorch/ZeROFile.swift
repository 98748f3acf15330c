import Bytes
import Tensors

/// A file of DeepSpeed, which is a dictionary, and what stands in it under a few keys.
struct ZeROFile {
  typealias Reference = PickleGraph.Reference

  /// Position among the checkpoint's files.
  let position: Int
  let name: String
  let archive: PyTorchArchive
  private let root: [String: Reference]

  var graph: PickleGraph { archive.graph }

  init(_ position: Int, _ file: InputFile) throws(Failure) {
    self.position = position
    name = file.name
    archive = try PyTorchArchive(file)
    guard let root = Self.dictionary(archive.graph, archive.graph.root) else {
      throw Failure(.malformed, "holds a \(archive.graph[archive.graph.root].kind), expected a dictionary", file: name)
    }
    self.root = root
  }

  /// Entries whose keys are texts.
  static func dictionary(_ graph: PickleGraph, _ reference: Reference) -> [String: Reference]? {
    guard let pairs = graph.pairs(reference) else { return nil }
    var entries: [String: Reference] = [:]
    for (key, value) in pairs { if let text = graph.text(key) { entries[text] = value } }
    return entries
  }

  /// Nil where it is `None` too.
  subscript(key: String) -> Reference? {
    root[key].flatMap { graph[$0].kind == .none ? nil : $0 }
  }

  /// Names and what belongs to them, in the order written; nil where there is nothing.
  func named(_ key: String) throws(Failure) -> [(name: String, value: Reference)]? {
    try self[key].map { (reference) throws(Failure) in try named(reference, key) }
  }

  func named(_ reference: Reference, _ what: String) throws(Failure) -> [(name: String, value: Reference)] {
    guard let pairs = graph.pairs(reference) else { throw wrong(what, "a dictionary") }
    var entries: [(name: String, value: Reference)] = []
    for (key, value) in pairs {
      guard let name = graph.text(key) else { throw wrong(what, "keys that are texts") }
      entries.append((name, value))
    }
    return entries
  }

  /// A `torch.Size`, or the tuple or list in its place.
  func shape(_ reference: Reference, _ name: String) throws(Failure) -> [Int] {
    var list = reference
    if let call = graph.call(reference), call.name == "torch.Size", call.arguments.count == 1 {
      list = call.arguments[0]
    }
    return try integers(list, "the shape of '\(name.printable(limit: 256))'")
  }

  /// Numbers that are not negative.
  func integers(_ reference: Reference, _ what: String) throws(Failure) -> [Int] {
    guard let items = graph.items(reference) else { throw wrong(what, "a list of numbers") }
    var numbers: [Int] = []
    for item in items {
      guard let number = graph.integer(item), number >= 0 else { throw wrong(what, "numbers that are not negative") }
      numbers.append(number)
    }
    return numbers
  }

  /// The number, or that of a member of an enumeration.
  func integer(_ reference: Reference) -> Int? {
    if let number = graph.integer(reference) { return number }
    guard let call = graph.call(reference), call.arguments.count == 1 else { return nil }
    return graph.integer(call.arguments[0])
  }

  func tensor(_ reference: Reference, _ name: String) throws(Failure) -> PyTorchTensor {
    try archive.tensor(of: reference, named: TensorName(name))
  }

  func wrong(_ what: String, _ expected: String) -> Failure {
    Failure(.malformed, "\(what): expected \(expected)", file: name)
  }
}
