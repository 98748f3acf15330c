/// The checksum of ZIP archives: CRC-32 with the polynomial 0x04C11DB7, bits reversed (ISO 3309).
struct CRC32 {
  /// Of the bytes seen so far.
  var value: UInt32 { ~state }
  private var state: UInt32 = .max

  /// `tables[k][b]` is what the byte `b` does to the state, k bytes later.
  private static let tables: [[UInt32]] = {
    var tables = [(0..<256).map { byte in (0..<8).reduce(UInt32(byte)) { state, _ in step(state) } }]
    for number in 1..<8 {
      tables.append(tables[number - 1].map { tables[0][Int($0 & 0xFF)] ^ $0 >> 8 })
    }
    return tables
  }()

  private static func step(_ state: UInt32) -> UInt32 { state & 1 == 0 ? state >> 1 : state >> 1 ^ 0xEDB8_8320 }

  /// Eight bytes at a time.
  mutating func update(_ bytes: [UInt8]) {
    let tables = Self.tables
    let bytes = bytes.span
    var index = 0
    var state = self.state
    while index + 8 <= bytes.count {
      var low: UInt32 = state
      for k in 0..<4 { low ^= UInt32(bytes[index + k]) << UInt32(8 * k) }
      state = 0
      for k in 0..<4 { state ^= tables[7 - k][Int(low >> UInt32(8 * k) & 0xFF)] }
      for k in 4..<8 { state ^= tables[7 - k][Int(bytes[index + k])] }
      index += 8
    }
    while index < bytes.count {
      state = tables[0][Int((state ^ UInt32(bytes[index])) & 0xFF)] ^ state >> 8
      index += 1
    }
    self.state = state
  }
}
