#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

extension RawSpan {
  /// As comparing byte by byte, at the speed of memory.
  package func hasSameBytes(as other: RawSpan) -> Bool {
    guard byteCount == other.byteCount else { return false }
    return unsafe withUnsafeBytes { own in
      unsafe other.withUnsafeBytes { others in
        guard let own = own.baseAddress, let others = others.baseAddress else { return true }
        return unsafe memcmp(own, others, byteCount) == 0
      }
    }
  }

  /// Positions where the two differ.
  ///
  /// - Precondition: both have as many bytes.
  package func differingByteCount(from other: RawSpan) -> Int {
    precondition(byteCount == other.byteCount, "not as many bytes on both sides")
    if hasSameBytes(as: other) { return 0 }
    return byteOffsets.count { load(at: $0, as: UInt8.self) != other.load(at: $0, as: UInt8.self) }
  }
}
