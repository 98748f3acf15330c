import Bytes
import Patterns
import Tensors

/// The changes to a file's metadata that the user asked for.
///
/// Every key is named once at most, as old or as new: so the order of the options means nothing.
struct MetadataChanges {
  /// `isLiteral`: the text comes from a file, and no word before a colon is the name of a type.
  private(set) var settings: [(key: String, text: String, isLiteral: Bool)] = []
  private(set) var removals: [String] = []
  private(set) var renames: [(old: String, new: String)] = []

  /// - Throws: `usage` for what is no `KEY=VALUE`, and for a key that is named twice.
  init(settings: [String], removals: [String], renames: [String]) throws(Failure) {
    for text in settings {
      let (key, value) = try Self.pair(text, "--set", "KEY=VALUE")
      if value.hasPrefix("@@") {
        self.settings.append((key, String(value.dropFirst()), false))
      } else if value.hasPrefix("@") {
        self.settings.append((key, try Self.contents(of: String(value.dropFirst()), for: key), true))
      } else {
        self.settings.append((key, value, false))
      }
    }
    self.removals = removals
    for text in renames {
      let (old, new) = try Self.pair(text, "--rename", "OLD=NEW")
      guard !new.isEmpty else { throw Failure(.usage, "option '--rename': '\(text)' names no new key") }
      self.renames.append((old, new))
    }
    var seen: Set<TensorName> = []
    for key in self.settings.map(\.key) + removals + self.renames.flatMap({ [$0.old, $0.new] }) {
      guard seen.insert(TensorName(key)).inserted else { throw Failure(.usage, "the key '\(key)' is named twice") }
    }
  }

  /// Beyond any chat template or license.
  private static let fileLimit = 64 << 20

  /// - Throws: what reading throws; `malformed` for what is not text.
  private static func contents(of path: String, for key: String) throws(Failure) -> String {
    guard !path.isEmpty else {
      throw Failure(.usage, "option '--set': '\(key)=@' names no file; '\(key)=@@' is the text '@'")
    }
    let bytes = try InputFile(path: path).contents(limit: fileLimit)
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw Failure(.malformed, "is not UTF-8, as a value of '\(key)' must be", file: path)
    }
    return text
  }

  var isEmpty: Bool { settings.isEmpty && removals.isEmpty && renames.isEmpty }

  /// Every key that is to be changed, or to appear.
  var keys: [String] { settings.map(\.key) + removals + renames.flatMap { [$0.old, $0.new] } }

  private static func pair(_ text: String, _ option: String, _ form: String) throws(Failure) -> (String, String) {
    let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    guard parts.count == 2, !parts[0].isEmpty else {
      throw Failure(.usage, "option '\(option)': '\(text)' is not \(form)")
    }
    return (parts[0], parts[1])
  }

  /// - Parameter present: the keys that are there.
  /// - Throws: `usage` when one that should be there is not, or the other way round.
  func check(_ present: [String]) throws(Failure) {
    let known = Set(present.map { TensorName($0) })
    for key in removals + renames.map(\.old) where !known.contains(TensorName(key)) {
      let hint = nearest(to: key, among: present).map { "; did you mean '\($0)'?" } ?? ""
      throw Failure(.usage, "there is no key '\(key)'\(hint)")
    }
    for (old, new) in renames where known.contains(TensorName(new)) {
      throw Failure(.usage, "'\(old)' cannot become '\(new)': there is such a key already")
    }
  }
}

/// One key that was changed.
public struct MetadataChange: Sendable {
  public struct Value: Sendable {
    /// The value's type, in a format that has types.
    public var type: String?
    public var text: String
  }

  public var key: String
  /// nil unless it was renamed.
  public var newKey: String?
  /// nil when there was none.
  public var before: Value?
  /// nil when it was removed.
  public var after: Value?
}
