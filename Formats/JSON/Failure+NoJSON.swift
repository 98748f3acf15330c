public import Bytes

extension Failure {
  /// A failure that names the kind of a file that ought to be JSON; nil when it looks like JSON with a fault.
  public static func noJSON(_ bytes: [UInt8]) -> Failure? {
    let beginning = Array(bytes.prefix(FileContent.length))
    var found = FileContent.signature(beginning)
    let first = beginning.first { ![0x20, 0x09, 0x0A, 0x0D].contains($0) }
    // What may be a word or a number of JSON, misspelled, is named where it stands, and so is a comment.
    let likeJSON = beginning.count > 16 ? "{[\"/" : "{[\"/]}'+-.0123456789tfnTFNI"
    if found == nil, let first, !likeJSON.utf8.contains(first) { found = FileContent.text(beginning) }
    return found.map { Failure(.malformed, "not JSON: it is \($0)") }
  }
}
