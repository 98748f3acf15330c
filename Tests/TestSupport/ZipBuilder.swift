/// Assembles ZIP archives byte by byte as PyTorch does, valid or not, without the code under test.
public struct ZipBuilder: Sendable {
  /// Each field as it stands in the directory; `local…` as before the data, where it differs.
  public struct Entry: Sendable {
    public var name: String
    public var data: [UInt8]
    public var flags: UInt16 = 0x0808
    public var method: UInt16 = 0
    /// nil for the true one.
    public var crc: UInt32?
    public var size: UInt32?
    public var offset: UInt32?
    public var extra: [UInt8] = []
    public var localName: String?
    public var localFlags: UInt16?
    public var localSize: UInt32 = 0
    public var localCRC: UInt32 = 0
    public var localExtra: UInt16?
    public var signature: UInt32 = 0x0403_4B50

    public init(_ name: String, _ data: [UInt8]) {
      self.name = name
      self.data = data
    }
  }

  public var entries: [Entry]
  public var prefix: [UInt8] = []
  public var comment: [UInt8] = []
  /// Whether there is an end record of 64 bits, as PyTorch always writes one.
  public var has64 = true
  /// As the end records have them; nil for the true ones.
  public var count: UInt64?
  public var count16: UInt16?
  public var directorySize: UInt64?
  public var directoryOffset: UInt64?
  public var diskCount: UInt32 = 1
  /// Entries of the directory, by position in `entries`; nil for all.
  public var listed: [Int]?

  public init(_ entries: [Entry]) { self.entries = entries }

  public subscript(name: String) -> Entry {
    get { entries.first { $0.name.hasSuffix(name) } ?? Entry(name, []) }
    set { for index in entries.indices where entries[index].name.hasSuffix(name) { entries[index] = newValue } }
  }

  /// Bit by bit, as the standard defines it.
  public static func crc(_ bytes: [UInt8]) -> UInt32 {
    var state = UInt32.max
    for byte in bytes {
      state ^= UInt32(byte)
      for _ in 0..<8 { state = state & 1 == 0 ? state >> 1 : (state >> 1) ^ 0xEDB8_8320 }
    }
    return ~state
  }

  /// Bytes that grow field by field.
  private struct Fields {
    var bytes: [UInt8] = []

    mutating func short(_ values: Int...) {
      for value in values { bytes += Pickle.little(value, 2) }
    }

    mutating func long(_ values: UInt32...) {
      for value in values { bytes += Pickle.little(value, 4) }
    }

    mutating func wide(_ values: UInt64...) {
      for value in values { bytes += Pickle.little(value, 8) }
    }
  }

  public var bytes: [UInt8] {
    var file = Fields(bytes: prefix)
    var directory = Fields()
    for (index, entry) in entries.enumerated() {
      let start = file.bytes.count
      add(entry, to: &file)
      if listed?.contains(index) ?? true { list(entry, start, in: &directory) }
    }
    return file.bytes + directory.bytes + end(at: file.bytes.count, size: directory.bytes.count)
  }

  /// What stands before the data, they, and what stands behind them.
  private func add(_ entry: Entry, to file: inout Fields) {
    let name = Array((entry.localName ?? entry.name).utf8)
    // The field FB fills up to a multiple of 64.
    let padding = (64 - (file.bytes.count + 30 + name.count + 4) % 64) % 64
    file.long(entry.signature)
    file.short(0, Int(entry.localFlags ?? entry.flags), Int(entry.method), 0, 0)
    file.long(entry.localCRC, entry.localSize, entry.localSize)
    file.short(name.count, entry.localExtra.map { Int($0) } ?? padding + 4)
    file.bytes += name
    file.short(0x4246, padding)
    file.bytes += [UInt8](repeating: 0x5A, count: padding) + entry.data
    file.long(0x0807_4B50, entry.crc ?? Self.crc(entry.data), UInt32(entry.data.count), UInt32(entry.data.count))
  }

  private func list(_ entry: Entry, _ start: Int, in directory: inout Fields) {
    let size = entry.size ?? UInt32(entry.data.count)
    directory.long(0x0201_4B50)
    directory.short(0, 0, Int(entry.flags), Int(entry.method), 0, 0)
    directory.long(entry.crc ?? Self.crc(entry.data), size, size)
    directory.short(entry.name.utf8.count, entry.extra.count, 0, 0, 0, 0, 0)
    directory.long(entry.offset ?? UInt32(start))
    directory.bytes += Array(entry.name.utf8) + entry.extra
  }

  /// What follows the directory.
  public func end(at start: Int, size: Int) -> [UInt8] {
    let entryCount = UInt64(listed?.count ?? entries.count)
    let (count, size64) = (count ?? entryCount, directorySize ?? UInt64(size))
    let offset = directoryOffset ?? UInt64(start)
    var end = Fields()
    if has64 {
      end.long(0x0606_4B50)
      end.wide(44)
      end.long(0, 0, 0)
      end.wide(count, count, size64, offset)
      end.long(0x0706_4B50, 0)
      end.wide(UInt64(start + size))
      end.long(diskCount)
    }
    let short = Int(count16 ?? UInt16(clamping: count))
    end.long(0x0605_4B50)
    end.short(0, 0, short, short)
    end.long(UInt32(clamping: size64), UInt32(clamping: offset))
    end.short(comment.count)
    return end.bytes + comment
  }
}
