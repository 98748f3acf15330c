public import Bytes

extension Failure {
  /// What a file holds that ought to be JSON and is something else altogether; nil when it looks like JSON with a fault.
  public static func noJSON(_ bytes: [UInt8]) -> Failure? {
    FileContent.signature(Array(bytes.prefix(FileContent.length))).map { Failure(.malformed, "not JSON: it is \($0)") }
  }
}
