/// A text with half of a surrogate pair in it, which strings of Python may have and Unicode's may not.
///
/// No `String` is equal to it, so whoever looks for a name or a setting does not find one by mistake; a file that is
/// written anew has the same escapes again.
public struct IllFormedString: Sendable, Hashable {
  /// UTF-8, a surrogate taking three bytes as its neighbours do (WTF-8).
  let bytes: [UInt8]

  init(wtf8 bytes: [UInt8]) { self.bytes = bytes }
}

extension IllFormedString: CustomStringConvertible {
  /// For messages: as JSON has it, without the quotes.
  public var description: String {
    String(JSONValue.illFormed(self).text(.compact).dropFirst().dropLast())
  }
}

extension JSONValue {
  /// Whether a string or key, at any depth, has half of a surrogate pair in it.
  public var hasIllFormedText: Bool {
    switch self {
    case .illFormed: true
    case .null, .bool, .number, .string: false
    case .array(let elements): elements.contains { $0.hasIllFormedText }
    case .object(let object): object.hasIllFormedKeys || object.members.contains { $0.value.hasIllFormedText }
    }
  }
}

/// The two forms of a string in a JSON text.
enum JSONText {
  case unicode(String)
  case illFormed(IllFormedString)
}
