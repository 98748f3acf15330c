#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

extension String {
  /// Whether the bytes of `part` occur in a row. Swift's `contains` compares characters, which may be longer.
  package func hasBytes(_ part: String) -> Bool {
    var text = self
    var part = part
    return text.withUTF8 { text in
      part.withUTF8 { part in
        guard let first = unsafe part.first, let wanted = part.baseAddress else { return true }
        guard var start = unsafe UnsafeRawPointer(text.baseAddress) else { return false }
        // Behind the last place where it may begin.
        let end = unsafe start + (text.count - part.count + 1)
        while unsafe start < end, let found = unsafe memchr(start, Int32(first), end - start) {
          if unsafe memcmp(found, wanted, part.count) == 0 { return true }
          unsafe start = UnsafeRawPointer(found) + 1
        }
        return false
      }
    }
  }

  package func hasBytes(prefix: String) -> Bool { utf8.starts(with: prefix.utf8) }
  package func hasBytes(suffix: String) -> Bool { utf8.reversed().starts(with: suffix.utf8.reversed()) }
}
