package import Bytes
package import Tensors

/// A directory as Meta publishes its models: `consolidated.00.pth` and on, each with what one of as many processes had
/// of every tensor. Which dimension was divided is written nowhere: a plan says it. Opening reads the pickles, no data.
package final class ConsolidatedCheckpoint: TrainingCheckpoint {
  /// How the parts of a tensor make the whole.
  package enum Joining: Sendable, Equatable {
    case rows
    case columns
    /// Every part is the whole, and the first counts.
    case copies
    /// Rows of so many heads. With fewer heads than parts, neighbours have the same head.
    case heads(Int)
  }

  /// A tensor that is wanted.
  package struct Whole: Sendable {
    /// Position among the tensors of the first file.
    package let part: Int
    package let shape: [Int]
    package let joining: Joining

    package init(part: Int, shape: [Int], joining: Joining) {
      self.part = part
      self.shape = shape
      self.joining = joining
    }
  }

  /// What one file has.
  package struct Contents: Sendable {
    /// In the order of their data.
    package let tensors: [TensorInfo]
    /// Positions of those that are the very same, two or more at a time.
    package let tied: [[Int]]
    package let fileCount: Int

    package init(tensors: [TensorInfo], tied: [[Int]], fileCount: Int) {
      self.tensors = tensors
      self.tied = tied
      self.fileCount = fileCount
    }
  }

  package let path: String
  package let warnings: [Warning]
  private let assembled: AssembledTensors
  /// Heads that are there more than once: `others` has them, in positions by that of the first.
  private let others: AssembledTensors
  private let repetitions: [Int: [Int]]

  // MARK: - Names

  private static let prefix = "consolidated."
  private static let ending = ".pth"

  /// The number in `consolidated.03.pth`; nil for another name.
  private static func number(_ name: String) -> Int? {
    guard name.hasPrefix(prefix), name.hasSuffix(ending), name.utf8.count <= 32 else { return nil }
    let digits = name.dropFirst(prefix.utf8.count).dropLast(ending.utf8.count)
    return digits.utf8.count >= 2 && digits.allSatisfy(\.isASCII) && digits.allSatisfy(\.isNumber) ? Int(digits) : nil
  }

  private static func name(_ number: Int) -> String { prefix + (number < 10 ? "0" : "") + String(number) + ending }

  /// Whether one of a directory's files is a part.
  package static func isThere(among names: [String]) -> Bool { names.contains { number($0) != nil } }

  /// - Parameter names: of a directory.
  /// - Returns: the files in the order of their numbers.
  /// - Throws: `missing` when a number below the largest is not there.
  private static func parts(among names: [String]) throws(Failure) -> [String] {
    let found = Set(names.filter { number($0) != nil })
    let last = found.compactMap(number).max() ?? 0
    for number in 0...min(last, found.count) where !found.contains(name(number)) {
      throw Failure(.missing, "the file is missing; there are parts up to '\(name(last))'", file: name(number))
    }
    return (0...last).map(name)
  }

  // MARK: - Opening

  /// - Parameter plan: says which tensors are wanted and how their parts lie.
  /// - Throws: `missing` for a file that is not there, `malformed` where files have other tensors than the first, and
  ///   what the plan throws.
  package init(_ directory: InputDirectory, plan: (Contents) throws(Failure) -> [Whole]) throws(Failure) {
    let names = try Self.parts(among: directory.names())
    let pool = FilePool(directory: directory, names: names)
    var files: [PyTorchContents] = []
    for position in names.indices { files.append(try PyTorchContents(PyTorchArchive(pool.file(position)))) }
    let first = files[0]
    let wanted = try plan(
      Contents(tensors: first.tensors.map(\.info), tied: Self.tied(files), fileCount: files.count))
    try Self.check(files, names, Set(wanted.map(\.part)))
    var tensors: [AssembledTensor] = []
    var others: [AssembledTensor] = []
    var repetitions: [Int: [Int]] = [:]
    for whole in wanted {
      let views = try Self.views(of: first.tensors[whole.part], files, names)
      let sets = try Self.sets(of: whole, count: views.count, name: first.tensors[whole.part].info.name)
      for (number, set) in sets.enumerated() {
        let tensor = try Self.joined(whole, set.map { ($0, views[$0]) })
        if number == 0 {
          tensors.append(tensor)
        } else {
          repetitions[tensors.count - 1, default: []].append(others.count)
          others.append(tensor)
        }
      }
    }
    path = directory.path
    assembled = AssembledTensors(tensors, in: names, pool)
    self.others = AssembledTensors(others, in: names, pool)
    self.repetitions = repetitions
    var warnings: [Warning] = []
    for (name, file) in zip(names, files) where !file.ignored.isEmpty {
      warnings.append("\(list: [name]): ignored \(names: file.ignored), which are no tensors of the model")
    }
    self.warnings = Warning.grouped(warnings)
  }

  /// Those that are the very same in every file.
  private static func tied(_ files: [PyTorchContents]) -> [[Int]] {
    func names(_ file: PyTorchContents) -> Set<Set<TensorName>> {
      Set(file.tied.map { Set($0.map { file.tensors[$0].info.name }) })
    }
    let common = files.dropFirst().reduce(names(files[0])) { $0.intersection(names($1)) }
    return files[0].tied.filter { group in common.contains(Set(group.map { files[0].tensors[$0].info.name })) }
  }

  /// Every file must have the tensors that the first one has.
  private static func check(_ files: [PyTorchContents], _ names: [String], _ wanted: Set<Int>) throws(Failure) {
    let known = Set(files[0].tensors.map(\.info.name))
    for (name, file) in zip(names, files).dropFirst() {
      for (position, tensor) in files[0].tensors.enumerated()
      where wanted.contains(position) && file.index(of: tensor.info.name) == nil {
        throw Failure(
          .malformed, "is not in this file, but in '\(names[0])'", file: name, tensor: "\(tensor.info.name)")
      }
      // Tables of angles are in some of them.
      for tensor in file.tensors where !known.contains(tensor.info.name) && tensor.shape.count > 1 {
        throw Failure(
          .malformed, "is in this file, but not in '\(names[0])'", file: name, tensor: "\(tensor.info.name)")
      }
    }
  }

  /// A tensor's part in each file.
  private static func views(
    of first: PyTorchTensor, _ files: [PyTorchContents], _ names: [String]
  ) throws(Failure) -> [PyTorchTensor] {
    var views: [PyTorchTensor] = []
    for (name, file) in zip(names, files) {
      guard let index = file.index(of: first.info.name) else { continue }
      let view = file.tensors[index]
      guard view.shape == first.shape, view.info.type == first.info.type else {
        throw Failure(
          .malformed,
          "is \(view.info.type.name) of shape \(view.shape), in '\(names[0])' it is \(first.info.type.name) of shape "
            + "\(first.shape)", file: name, tensor: first.info.name.string)
      }
      views.append(view)
    }
    return views
  }

  /// Which files have the whole, together; more than one set when parts are repeated.
  private static func sets(of whole: Whole, count: Int, name: TensorName) throws(Failure) -> [[Int]] {
    switch whole.joining {
    case .copies: return [[0]]
    case .heads(let heads) where heads < count && heads > 0:
      guard count % heads == 0 else {
        throw Failure(
          .malformed, "has \(counted(heads, "head")) in \(counted(count, "part")), which is no multiple of it",
          tensor: name.string)
      }
      let copies = count / heads
      return (0..<copies).map { copy in (0..<heads).map { $0 * copies + copy } }
    case .rows, .columns, .heads: return [Array(0..<count)]
    }
  }

  private static func joined(
    _ whole: Whole, _ views: [(file: Int, view: PyTorchTensor)]
  ) throws(Failure) -> AssembledTensor {
    guard let first = views.first?.view else { throw Failure(.internal, "a tensor of no parts") }
    let info = try TensorInfo(name: first.info.name, type: first.info.type, shape: whole.shape)
    let axis = whole.joining == .columns ? 1 : 0
    var parts: [AssembledTensor.Part] = []
    var start = 0
    for (file, view) in views {
      var offsets = [Int](repeating: 0, count: view.shape.count)
      if axis < offsets.count { offsets[axis] = start }
      parts.append(.init(file: file, view: view, offsets: offsets, sizes: view.shape))
      start = start.addingSaturated(axis < view.shape.count ? view.shape[axis] : 0)
    }
    return try AssembledTensor(info, parts: parts)
  }

  // MARK: - Reading

  package var tensors: [TensorInfo] { assembled.tensors }
  package var fileNames: [String] { assembled.fileNames }
  package var identities: [FileIdentity] { assembled.identities }

  package func index(of name: TensorName) -> Int? { assembled.index(of: name) }
  package func location(of index: Int) -> (file: String, offset: Int) {
    assembled.location(of: index) ?? (fileNames[0], 0)
  }
  package func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int)? {
    repetitions[index] == nil ? try assembled.place(of: index) : nil
  }

  /// - Throws: `malformed` also where a head that is there more than once has other values.
  package func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    try assembled.read(index, at: offset, into: &destination)
    for other in repetitions[index] ?? [] {
      var values = ScratchBuffer(byteCount: destination.byteCount)
      var room = values.mutableBytes
      try others.read(other, at: offset, into: &room)
      guard values.bytes.hasSameBytes(as: destination.bytes) else {
        throw Failure(
          .malformed, "has heads that are in more than one part, and not with the same values",
          file: location(of: index).file, tensor: tensors[index].name.string)
      }
    }
  }

  package func checkUnchanged() throws(Failure) { try assembled.checkUnchanged() }
}
