/// A scale and 8-bit codes: `x = d · q`.
enum Q8_0: BlockEncoder {
  static let fields: [BlockField] = [.half, .bytes(32)]

  static func decode(_ block: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    let d = unsafe block.half(0)
    for i in 0..<32 { unsafe values[i] = Float(Int8(bitPattern: block[2 + i])) * d }
  }

  static func encode(_ values: UnsafeBufferPointer<Float>, into block: UnsafeMutableRawBufferPointer) {
    let d = unsafe values.reduce(0) { max($0, $1.magnitude) } / 127
    let inverse = d == 0 ? 0 : 1 / d
    unsafe block.storeHalf(d, 0)
    for i in 0..<32 {
      let scaled = unsafe (values[i] * inverse).rounded(.toNearestOrAwayFromZero)
      unsafe block[2 + i] = UInt8(bitPattern: scaled.isFinite ? Int8(scaled) : 0)
    }
  }
}
