import Bytes

/// The files that one GGUF model consists of.
///
/// A split has files `STEM-00001-of-000NN.gguf`; each says its number (from 0), how many there are, and the number of
/// tensors in all. The metadata of the model stands in the first.
struct GGUFSplit {
  static let numberKey = "split.no"
  static let countKey = "split.count"
  static let tensorCountKey = "split.tensors.count"
  static let keys = [numberKey, countKey, tensorCountKey]
  static let countLimit = 65_535

  let names: [String]
  let directory: InputDirectory?
  let pool: FilePool

  init(path: String) throws(Failure) {
    if InputDirectory.exists(at: path) {
      let directory = try InputDirectory(path: path)
      try self.init(named: Self.choose(in: directory), in: directory)
      return
    }
    let name = path.split(separator: "/").last.map(String.init) ?? path
    let file = try InputFile(path: path, name: name)
    let header = try GGUFHeader(of: file)
    let count = try header.metadata.integer(Self.countKey) ?? 1
    guard count > 1 else {
      self.init(names: [name], directory: nil, pool: FilePool(file: file))
      return
    }
    let parent = String(path.dropLast(name.count))
    try self.init(named: name, in: InputDirectory(path: parent.isEmpty ? "." : parent), count: count)
  }

  private init(named name: String, in directory: InputDirectory, count: Int? = nil) throws(Failure) {
    let split = GGUFFileName(name)
    guard let total = count ?? split.map(\.total), total > 1 else {
      self.init(names: [name], directory: directory, pool: FilePool(directory: directory, names: [name]))
      return
    }
    guard total <= Self.countLimit else {
      throw Failure(.malformed, "\(Self.countKey) is \(total), allowed are \(Self.countLimit)", file: name)
    }
    guard let split, split.total == total else {
      throw Failure(
        .malformed,
        "is one of \(total) files, but its name does not end in -NNNNN-of-\(GGUFFileName.five(total)).gguf", file: name)
    }
    let names = (1...total).map { GGUFFileName(stem: split.stem, number: $0, total: total).text }
    if let absent = names.first(where: { !directory.contains($0) }) {
      throw Failure(.missing, "the file is missing; '\(name)' is one of \(total)", file: absent)
    }
    self.init(names: names, directory: directory, pool: FilePool(directory: directory, names: names))
  }

  private init(names: [String], directory: InputDirectory?, pool: FilePool) {
    self.names = names
    self.directory = directory
    self.pool = pool
  }

  /// The one model of a directory.
  private static func choose(in directory: InputDirectory) throws(Failure) -> String {
    let names = try directory.names().filter { $0.hasSuffix(".gguf") && !$0.hasPrefix(".") }
    // Of a split, only the first file stands for the model.
    let models = names.filter { GGUFFileName($0).map { $0.total == 1 || $0.number == 1 } ?? true }
    guard let first = models.first ?? names.first else {
      throw Failure(.missing, "holds no GGUF file", file: directory.path)
    }
    guard models.count <= 1 else {
      let shown = models.prefix(3).map { "'\($0.printable(limit: 100))'" }.joined(separator: ", ")
      throw Failure(
        .malformed, "holds \(models.count) GGUF models (\(shown)\(models.count > 3 ? ", …" : "")): name the one meant",
        file: directory.path)
    }
    return first
  }

  /// - Parameter number: from 0.
  func check(_ header: GGUFHeader, number: Int, file: String) throws(Failure) {
    do throws(Failure) {
      let count = try header.metadata.integer(Self.countKey) ?? 1
      guard names.count > 1 else {
        if count > 1 { throw Failure(.malformed, "is one of \(count) files, its name says otherwise") }
        return
      }
      let found = try header.metadata.integer(Self.numberKey)
      guard count == names.count, found == number else {
        throw Failure(
          .malformed,
          "is number \(number) of \(names.count) by its name, \(found.map(String.init) ?? "nothing") of \(count) by its "
            + "metadata (counted from 0)")
      }
    } catch { throw error.located(file: file) }
  }
}

/// `STEM-00001-of-00003.gguf`, taken apart or put together.
public struct GGUFFileName: Equatable, Sendable {
  public var stem: String
  /// The part's number, from 1.
  public var number: Int
  public var total: Int

  public init(stem: String, number: Int, total: Int) {
    self.stem = stem
    self.number = number
    self.total = total
  }

  /// nil for a name without the numbers of a split.
  public init?(_ name: String) {
    guard name.hasSuffix(".gguf") else { return nil }
    let parts = name.dropLast(5).split(separator: "-", omittingEmptySubsequences: false)
    guard parts.count >= 4, parts[parts.count - 2] == "of", let total = Self.number(parts[parts.count - 1]),
      let number = Self.number(parts[parts.count - 3]), number >= 1, number <= total
    else { return nil }
    self.init(stem: parts.dropLast(3).joined(separator: "-"), number: number, total: total)
  }

  public var text: String {
    total == 1 ? "\(stem).gguf" : "\(stem)-\(Self.five(number))-of-\(Self.five(total)).gguf"
  }

  /// Five digits and nothing else: `Int` takes a sign too.
  private static func number(_ text: Substring) -> Int? {
    guard text.utf8.count == 5, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
    return Int(text)
  }

  static func five(_ value: Int) -> String {
    let digits = String(value)
    return String(repeating: "0", count: max(0, 5 - digits.utf8.count)) + digits
  }
}
