import Quantization

public let nibbleVersion = "0.1.0"

/// The instruction set that the kernels use on this machine.
public func activeSIMDTarget() -> String { simdTarget }
