import Kernels
public func simdTarget() -> String { unsafe String(cString: nibble_kernels_target()) }
