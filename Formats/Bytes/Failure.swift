/// An error: what went wrong, where, and the exit code of the process.
///
/// Every module of Nibble throws this one type. It names the file, the tensor and the byte offset as
/// far as they are known where it is thrown; callers that know more add it with `located(…)`.
public struct Failure: Error, Sendable, Equatable {
  /// The process exit code that a failure of this kind ends with (values of `sysexits.h`).
  public enum Code: Int32, Sendable, CaseIterable {
    /// The command line is wrong.
    case usage = 2
    /// Input rejected: malformed, inconsistent, over a limit, non-finite weights.
    case malformed = 65
    /// Input missing or unreadable.
    case missing = 66
    /// Well-formed, but not something Nibble can do.
    case unsupported = 69
    /// A bug of Nibble, caught.
    case `internal` = 70
    /// The output cannot be created, or already exists.
    case cannotCreate = 73
    /// Reading or writing failed, the disk is full, or the input changed meanwhile.
    case io = 74
    /// Another run holds the lock.
    case locked = 75
    /// Stopped by SIGHUP, SIGINT, SIGTERM; everything unfinished was removed.
    case hangup = 129
    case interrupted = 130
    case terminated = 143
    /// Nobody reads the output any more, as behind `| head`.
    case brokenPipe = 141
  }

  public var code: Code
  /// The value or state that was found, and what is allowed. One line, no full stop.
  public var message: String
  /// The file's name as the user would recognise it.
  public var file: String?
  public var tensor: String?
  /// Byte offset from the start of `file`.
  public var offset: Int?

  public init(
    _ code: Code, _ message: String, file: String? = nil, tensor: String? = nil, offset: Int? = nil
  ) {
    self.code = code
    self.message = message
    self.file = file
    self.tensor = tensor
    self.offset = offset
  }

  /// The same failure with file and tensor filled in where they were not known yet.
  public func located(file: String? = nil, tensor: String? = nil) -> Failure {
    var copy = self
    copy.file = self.file ?? file
    copy.tensor = self.tensor ?? tensor
    return copy
  }

  /// The message with the offset, without file and tensor, which stand elsewhere.
  package var text: String { offset.map { "\(message), at offset \($0)" } ?? message }

  /// `FILE: tensor 'NAME': message, at offset N`, with every control character escaped.
  public var description: String {
    var text = ""
    if let file { text += "\(file.printable(limit: 1024)): " }
    if let tensor { text += "tensor '\(tensor.printable(limit: 512))': " }
    text += message.printable(limit: 2048)
    if let offset { text += ", at offset \(offset)" }
    return text
  }
}

extension Failure: CustomStringConvertible {}
