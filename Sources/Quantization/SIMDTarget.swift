import Kernels

/// The instruction set in use by the kernels, such as `AVX3` or `NEON`.
public var simdTarget: String { unsafe String(cString: nibble_kernels_target()) }

/// The instruction sets this machine can run, for tests: all give the same results.
package enum KernelTarget {
  /// Best first; the first is in use unless `select` chose another.
  package static var names: [String] {
    (0..<nibble_kernels_target_count()).map { unsafe String(cString: nibble_kernels_target_name($0)) }
  }

  /// Process-wide. -1 selects the best.
  package static func select(_ index: Int) { nibble_kernels_select_target(Int32(clamping: index)) }
}
