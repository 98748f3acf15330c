import Bytes

/// Walks over the header of a file through a window of bounded size: what is skipped is not kept, and a file that
/// shrinks meanwhile is an error, not a bus error.
struct GGUFCursor {
  private static let windowSize = 1 << 18

  let file: InputFile
  private(set) var position = 0
  private var window: [UInt8] = []
  private var windowStart = 0

  init(_ file: InputFile) { self.file = file }

  var remaining: Int { file.size - position }

  /// - Parameter what: named in the error when the file ends before.
  mutating func integer<T: FixedWidthInteger & UnsignedInteger>(
    _ type: T.Type, _ what: @autoclosure () -> String
  ) throws(Failure) -> T {
    let width = MemoryLayout<T>.size
    try need(width, what)
    if position + width > windowStart + window.count { try fillWindow() }
    var value: T = 0
    for index in 0..<width { value |= T(truncatingIfNeeded: window[position - windowStart + index]) << T(8 * index) }
    position += width
    return value
  }

  mutating func bytes(_ count: Int, _ what: @autoclosure () -> String) throws(Failure) -> [UInt8] {
    try need(count, what)
    defer { position += count }
    if position >= windowStart, position + count <= windowStart + window.count {
      return Array(window[position - windowStart..<position - windowStart + count])
    }
    if count > Self.windowSize / 2 { return try file.bytes(in: position..<position + count) }
    try fillWindow()
    return Array(window[..<count])
  }

  mutating func skip(_ count: Int, _ what: @autoclosure () -> String) throws(Failure) {
    try need(count, what)
    position += count
    // What has been jumped over is not read at all.
    if position > windowStart + window.count {
      window = []
      windowStart = position
    }
  }

  private func need(_ count: Int, _ what: () -> String) throws(Failure) {
    guard count <= remaining else {
      throw Failure(
        .malformed, "ends inside \(what()): \(count) bytes are needed, \(remaining) remain", offset: position)
    }
  }

  private mutating func fillWindow() throws(Failure) {
    windowStart = position
    window = try file.bytes(in: position..<position + min(Self.windowSize, remaining))
  }
}
