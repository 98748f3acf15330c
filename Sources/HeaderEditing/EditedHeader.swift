package import Bytes
import Checkpoints
package import GGUF
import JSON
import Safetensors

/// The bytes before a file's data, as they are and as they are to be.
struct EditedHeader {
  let container: String
  let old: [UInt8]
  let new: [UInt8]
  let changes: [MetadataChange]
  let warnings: [Warning]
  let source: Source

  /// What the file is.
  enum Source {
    case safetensors(SafetensorsFile)
    /// With the metadata as they are to be.
    case gguf(GGUFMetadata)
  }

  /// Whether the data may stay where it is.
  var fits: Bool { old.count == new.count }

  /// - Throws: `usage` for a change that cannot be made, `malformed` for a file that is not whole.
  init(_ file: InputFile, _ changes: MetadataChanges) throws(Failure) {
    do throws(Failure) {
      if try GGUFHeader.isGGUF(file) {
        try self.init(GGUFHeader(of: file), file, changes)
      } else {
        try self.init(SafetensorsFile(file), changes)
      }
    } catch { throw error.located(file: file.name) }
  }

  // MARK: - Safetensors

  private init(_ opened: SafetensorsFile, _ changes: MetadataChanges) throws(Failure) {
    let (file, header) = (opened.file, opened.header)
    try changes.check(header.metadata.map(\.key))
    var pairs = header.metadata
    var made: [MetadataChange] = []
    func position(_ key: String) -> Int? { pairs.firstIndex { KeyOrder.compare($0.key, key) == 0 } }
    for key in changes.removals {
      guard let index = position(key) else { continue }
      made.append(MetadataChange(key: key, before: .init(text: pairs.remove(at: index).value)))
    }
    for (old, new) in changes.renames {
      guard let index = position(old) else { continue }
      pairs[index].key = new
      let value = MetadataChange.Value(text: pairs[index].value)
      made.append(MetadataChange(key: old, newKey: new, before: value, after: value))
    }
    for (key, text, _) in changes.settings {
      if let index = position(key) {
        made.append(MetadataChange(key: key, before: .init(text: pairs[index].value), after: .init(text: text)))
        pairs[index].value = text
      } else {
        made.append(MetadataChange(key: key, after: .init(text: text)))
        pairs.append((key, text))
      }
    }
    container = "safetensors"
    old = try file.bytes(in: 0..<header.dataStart)
    new = try header.encoded(in: file, metadata: pairs)
    self.changes = made
    warnings = []
    source = .safetensors(opened)
  }

  // MARK: - GGUF

  private static let architectureKey = "general.architecture"

  private init(_ header: GGUFHeader, _ file: InputFile, _ changes: MetadataChanges) throws(Failure) {
    if let number = try header.metadata.integer("split.no"), number > 0 {
      throw Failure(.unsupported, "is file \(number + 1) of a split; the metadata is that of the first file")
    }
    for key in changes.keys { try Self.check(key) }
    var pairs = header.metadata.pairs
    try changes.check(pairs.map(\.key))
    var made: [MetadataChange] = []
    var warnings: [Warning] = []
    func position(_ key: String) -> Int? { pairs.firstIndex { KeyOrder.compare($0.key, key) == 0 } }
    for key in changes.removals {
      guard let index = position(key) else { continue }
      made.append(MetadataChange(key: key, before: try .init(pairs.remove(at: index).value)))
    }
    for (old, new) in changes.renames {
      guard let index = position(old) else { continue }
      pairs[index].key = new
      let value = try MetadataChange.Value(pairs[index].value)
      made.append(MetadataChange(key: old, newKey: new, before: value, after: value))
    }
    for (key, text, isLiteral) in changes.settings {
      let index = position(key)
      let present = index.map { pairs[$0].value }
      let value: GGUFValue
      do throws(Failure) {
        value =
          try isLiteral ? GGUFValue(contents: text, replacing: present) : GGUFValue(text: text, replacing: present)
      } catch {
        throw Failure(error.code, "'\(key)': \(error.message)")
      }
      let change = MetadataChange(key: key, before: try present.map(MetadataChange.Value.init), after: try .init(value))
      made.append(change)
      if let present, let before = change.before?.type, let after = change.after?.type, !value.isLike(present) {
        warnings.append("'\(key)' was \(before) and becomes \(after), which its readers may not expect")
      }
      if let index { pairs[index].value = value } else { pairs.append((key, value)) }
    }
    if changes.keys.contains(Self.architectureKey) {
      warnings.append("'\(Self.architectureKey)' decides which other keys and tensors a loader looks for")
    }
    container = "gguf"
    old = try file.bytes(in: 0..<header.dataStart)
    let metadata = GGUFMetadata(pairs)
    new = try header.encoded(metadata: metadata)
    source = .gguf(metadata)
    self.changes = made
    self.warnings = warnings
  }

  /// - Throws: `usage` for a key that the places of data or files depend on, or that is none.
  private static func check(_ key: String) throws(Failure) {
    if key == GGUFHeader.alignmentKey {
      throw Failure(.usage, "'\(key)' cannot be edited: every tensor would have to move")
    }
    if key.hasPrefix("split.") {
      throw Failure(.usage, "'\(key)' cannot be edited: 'nibble split' and 'nibble join' keep it right")
    }
    guard (1...GGUFHeader.keyLimit).contains(key.utf8.count) else {
      throw Failure(.usage, "a key of \(key.utf8.count) bytes, allowed are 1 to \(GGUFHeader.keyLimit)")
    }
  }
}

extension GGUFValue {
  /// Whether two values have the same type, arrays the same type of elements.
  fileprivate func isLike(_ other: GGUFValue) -> Bool {
    type == other.type && array?.elementType == other.array?.elementType
  }
}

extension MetadataChange.Value {
  package init(_ value: GGUFValue) throws(Failure) { self.init(type: value.typeName, text: try value.summary()) }
}
