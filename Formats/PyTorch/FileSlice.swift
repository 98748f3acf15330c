public import Bytes

/// A whole file, or the part of one that is a file in itself, such as an archive among others in a larger file.
public struct FileSlice: Sendable {
  public let file: InputFile
  /// Of the first byte in the file.
  public let offset: Int
  public let length: Int

  public init(_ file: InputFile) {
    self.file = file
    offset = 0
    length = file.size
  }

  /// - Throws: `malformed` when the file has no such part.
  public init(_ file: InputFile, offset: Int, length: Int) throws(Failure) {
    guard offset >= 0, length >= 0, length <= file.size - offset else {
      throw Failure(
        .malformed, "has \(file.size) bytes, \(length) from offset \(offset) on are outside it", file: file.name)
    }
    self.file = file
    self.offset = offset
    self.length = length
  }

  /// - Parameter range: counted from the beginning of the slice; must lie inside it.
  func bytes(in range: Range<Int>) throws(Failure) -> [UInt8] {
    guard range.lowerBound >= 0, range.upperBound <= length else {
      throw Failure(.internal, "range \(range) is outside the slice's \(length) bytes", file: file.name)
    }
    return try file.bytes(in: offset + range.lowerBound..<offset + range.upperBound)
  }
}

extension [UInt8] {
  /// A little-endian number.
  ///
  /// - Precondition: all of its bytes are there.
  func little<T: FixedWidthInteger & UnsignedInteger>(_ type: T.Type, at offset: Int) -> T {
    var value: T = 0
    for index in 0..<MemoryLayout<T>.size { value |= T(truncatingIfNeeded: self[offset + index]) << T(8 * index) }
    return value
  }

  func starts(with other: [UInt8], at offset: Int) -> Bool {
    offset >= 0 && other.count <= count - offset && self[offset..<offset + other.count].elementsEqual(other)
  }
}
