public import Bytes
public import Tensors

/// The part of a GGUF file before its data: metadata, then descriptions of the tensors. See `FORMAT.md`.
///
/// A header that exists is valid: keys and names differ by their bytes, each tensor begins at the first aligned byte
/// after the one before it, and the last ends within the file.
public struct GGUFHeader: Sendable {
  public static let tensorLimit = 1_000_000
  public static let metadataLimit = 1_000_000
  /// Bytes of a key, as the specification has it.
  public static let keyLimit = 65_535
  /// Bytes of one string.
  public static let stringLimit = 64 << 20
  /// Bytes of one array, those in it included: what is read at once when its elements are asked for.
  public static let arrayLimit = 1 << 30
  public static let alignmentKey = "general.alignment"
  public static let defaultAlignment = 32
  public static let alignmentLimit = 1 << 20
  static let nestingLimit = 8

  /// 2 or 3, which differ in nothing that concerns a little-endian file.
  public let version: UInt32
  public let metadata: GGUFMetadata
  /// The tensors in the order of their data.
  public let tensors: [GGUFTensor]
  /// Offset of the first data byte in the file.
  public let dataStart: Int
  public let alignment: Int
  /// Findings that are worth knowing and no errors.
  public let warnings: [Warning]

  /// First byte of each tensor, counted from `dataStart`.
  private let begins: [Int]
  private let order: KeyOrder

  /// Reads and validates the header of an open file. No data byte is read.
  public init(of file: InputFile) throws(Failure) {
    do throws(Failure) {
      var parser = GGUFHeaderParser(file)
      try parser.parse()
      version = parser.version
      metadata = GGUFMetadata(parser.pairs)
      tensors = parser.tensors
      begins = parser.begins
      order = parser.order
      alignment = parser.alignment
      dataStart = parser.dataStart
      warnings = parser.warnings
    } catch { throw error.located(file: file.name) }
  }

  /// Everything that stands before the data, with other metadata: the tensors and their places in the data section
  /// stay, the section itself may begin elsewhere.
  ///
  /// - Precondition: `metadata` has the alignment of this header.
  public func encoded(metadata: GGUFMetadata) throws(Failure) -> [UInt8] {
    try GGUFLayout.encode(metadata, tensors[...], begins, alignment, version: version)
  }

  /// Where a tensor's bytes are, counted from the file's first byte.
  public func range(of index: Int) -> Range<Int> {
    let start = dataStart + begins[index]
    return start..<(start + tensors[index].byteCount)
  }

  /// The position in `tensors` of a name.
  public func index(of name: TensorName) -> Int? {
    order.position(of: name.string) { tensors[$0].name.string }
  }

  /// True when the file begins as GGUF does, in either byte order.
  public static func isGGUF(_ file: InputFile) throws(Failure) -> Bool {
    let beginning = try file.bytes(in: 0..<min(4, file.size))
    return beginning.elementsEqual("GGUF".utf8) || beginning.elementsEqual("FUGG".utf8)
  }
}
