import Kernels

/// The instruction set in use by the kernels, such as `AVX3` or `NEON`.
public var simdTarget: String { unsafe String(cString: nibble_kernels_target()) }
