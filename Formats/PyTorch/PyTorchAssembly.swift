import Bytes
import Tensors

/// The files and tensors of a checkpoint, collected while the pickles are being read.
struct PyTorchAssembly {
  private(set) var files: [PyTorchCheckpoint.File] = []
  private(set) var views: [PyTorchTensor] = []
  private(set) var tied: [[Int]] = []
  private(set) var warnings: [Warning] = []
  /// The tensors' names in byte order; empty until `finish()`.
  private(set) var order = KeyOrder([])

  mutating func add(_ file: InputFile) throws(Failure) {
    let contents = try PyTorchContents(PyTorchArchive(file))
    let first = views.count
    views += contents.tensors
    tied += contents.tied.map { group in group.map { first + $0 } }
    files.append(
      .init(
        name: file.name, size: file.size, tensors: first..<views.count, root: contents.root, ignored: contents.ignored))
    if !contents.ignored.isEmpty {
      warnings.append("\(list: [file.name]): ignored \(names: contents.ignored), which are no tensors of the model")
    }
  }

  /// All names, each once.
  ///
  /// - Throws: `malformed` when two files hold a tensor of the same name.
  mutating func finish() throws(Failure) {
    guard order.positions.count != views.count else { return }
    let views = self.views
    order = KeyOrder(count: views.count) { views[$0].info.name.string }
    warnings = Warning.grouped(warnings)
    if let (first, second) = order.firstDuplicate {
      throw Failure(
        .malformed, "the tensor is in '\(files[files.position(ofTensor: first)].name)' too, allowed is one file",
        file: files[files.position(ofTensor: second)].name, tensor: views[second].info.name.string)
    }
  }
}

extension [PyTorchCheckpoint.File] {
  /// The position of the file that holds a tensor.
  func position(ofTensor tensor: Int) -> Int {
    indices.partition { self[$0].tensors.upperBound <= tensor }
  }
}

/// Which tensor is in which file, as an index says.
struct PyTorchIndex {
  let name: String
  private let map: PyTorchCheckpoint.WeightMap
  private let order: KeyOrder
  /// Distinct file names, sorted by bytes.
  let files: [String]

  init(_ map: PyTorchCheckpoint.WeightMap, name: String) throws(Failure) {
    self.name = name
    self.map = map
    order = KeyOrder(count: map.count) { map[$0].name }
    if let (first, _) = order.firstDuplicate {
      throw Failure(.malformed, "key '\(map[first].name.printable(limit: 512))' occurs twice")
    }
    files = Set(map.map { TensorName($0.file) }).sorted().map(\.string)
    guard !files.isEmpty else { throw Failure(.malformed, "index has an empty 'weight_map'") }
  }

  /// That all files are there, and no other that would be read instead.
  func checkFiles(in directory: InputDirectory) throws(Failure) {
    let single = PyTorchChoice.singleName
    if directory.contains(single), !files.contains(single) {
      throw Failure(
        .malformed,
        "does not list '\(single)', which lies beside it and which other loaders read instead of the shards; name the "
          + "file or remove one of the two", file: name)
    }
    for file in files {
      guard InputDirectory.isPlainComponent(file) else {
        throw Failure(
          .malformed, "names '\(file.printable(limit: 300))', which is not a plain name of a file", file: name)
      }
      guard !directory.contains(file) else { continue }
      let inIt = order.positions.map { map[Int($0)] }.filter { TensorName($0.file) == TensorName(file) }
      throw Failure(
        .missing,
        "the file is missing; '\(name)' puts \(counted(inIt.count, "tensor")) into it, the first of them this one",
        file: file, tensor: inIt.first?.name)
    }
  }

  /// Index and shards must say the same of every tensor.
  func check(_ assembly: PyTorchAssembly) throws(Failure) {
    // Both lists are in byte order: one walk finds what either lacks.
    var listed = order.positions.makeIterator()
    var entry = listed.next().map { map[Int($0)] }
    for position in assembly.order.positions {
      let tensor = assembly.views[Int(position)].info.name.string
      let file = assembly.files[assembly.files.position(ofTensor: Int(position))].name
      if let current = entry, KeyOrder.compare(current.name, tensor) < 0 { throw notStored(current) }
      guard let current = entry, KeyOrder.compare(current.name, tensor) == 0 else {
        throw Failure(.malformed, "the tensor is not listed in '\(name)'", file: file, tensor: tensor)
      }
      guard TensorName(current.file) == TensorName(file) else {
        throw Failure(
          .malformed, "'\(name)' says the tensor is in '\(current.file)', found in '\(file)'", file: file,
          tensor: tensor)
      }
      entry = listed.next().map { map[Int($0)] }
    }
    if let entry { throw notStored(entry) }
  }

  private func notStored(_ entry: (name: String, file: String)) -> Failure {
    Failure(
      .malformed, "'\(name)' says the tensor is in this file, but no shard has it", file: entry.file, tensor: entry.name
    )
  }
}
