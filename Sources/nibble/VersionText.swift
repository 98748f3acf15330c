import Writing

/// `nibble 0.1.0 (Swift 6.3, AVX3_DL)`
func versionText() -> String {
  "nibble \(nibbleVersion) (Swift \(swiftVersion), SIMD \(activeSIMDTarget()))"
}

// The language offers the compiler's version only as a condition.
#if compiler(>=6.5)
  private let swiftVersion = "6.5 or newer"
#elseif compiler(>=6.4)
  private let swiftVersion = "6.4"
#elseif compiler(>=6.3)
  private let swiftVersion = "6.3"
#else
  private let swiftVersion = "6.2"
#endif
