/// Files as `torch.save` writes them, put together by hand.
public enum TorchBuilder {
  /// An archive with a pickle and storages.
  public static func zip(
    _ pickle: [UInt8], _ storages: [(key: String, data: [UInt8])] = [], edit: (inout ZipBuilder) -> Void = { _ in }
  ) -> [UInt8] {
    var zip = ZipBuilder(
      [.init("m/data.pkl", pickle), .init("m/.format_version", [0x31]), .init("m/byteorder", Array("little".utf8))]
        + storages.map { .init("m/data/\($0.key)", $0.data) }
        + [.init("m/version", [0x33, 0x0A]), .init("m/.data/serialization_id", Array("0123456789".utf8))])
    edit(&zip)
    return zip.bytes
  }

  /// `80 02 8a 0a …`, the number that a legacy file begins with.
  public static let magic: [UInt8] = Pickle.whole([
    0x8A, 10, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19,
  ])

  public static func system(isLittle: Bool = true) -> [UInt8] {
    Pickle.whole(
      Pickle.dictionary([
        ("protocol_version", Pickle.integer(1001)), ("little_endian", isLittle ? [0x88] : [0x89]),
        ("type_sizes", Pickle.dictionary([("short", Pickle.integer(2)), ("int", Pickle.integer(4))])),
      ]))
  }

  /// Five pickles and the storages.
  ///
  /// - Parameter storages: the count as it stands before the data.
  public static func legacy(
    _ value: [UInt8], _ storages: [(key: String, count: Int, data: [UInt8])], version: Int = 1001,
    system: [UInt8] = system()
  ) -> [UInt8] {
    magic + Pickle.whole(Pickle.integer(version)) + system + Pickle.whole(value)
      + Pickle.whole(Pickle.list(storages.map { Pickle.text($0.key) }))
      + storages.flatMap { Pickle.little($0.count, 8) + $0.data }
  }

  /// `{"a.weight": bf16 [[0, 1, 2], [3, 4, 5]]}`.
  public static let example = Pickle.whole(
    Pickle.dictionary([("a.weight", Pickle.tensor(Pickle.storage(6, "BFloat16Storage"), [2, 3]))]))
  public static let exampleData: [UInt8] = [0, 0, 0x80, 0x3F, 0, 0x40, 0x40, 0x40, 0x80, 0x40, 0xA0, 0x40]

  /// Six numbers as float32, under the key "0".
  public static let six: [(key: String, data: [UInt8])] = [
    ("0", (0..<6).flatMap { Pickle.little(Float($0).bitPattern, 4) })
  ]

  /// A file with one tensor "w" over `six`.
  public static func one(_ tensor: [UInt8]) -> [UInt8] {
    zip(Pickle.whole(Pickle.dictionary([("w", tensor)])), six)
  }

  /// Transposed, expanded, tied and empty tensors over two storages, and other things beside them.
  public static let mixed = Pickle.whole(
    Pickle.dictionary([
      ("epoch", Pickle.integer(70_000)), ("t", Pickle.tensor(Pickle.storage(6), [3, 2], strides: [1, 3])),
      ("u", Pickle.tensor(Pickle.storage(6), [2, 3])), ("v", Pickle.tensor(Pickle.storage(6), [2, 3])),
      ("e", Pickle.tensor(Pickle.storage(3, "HalfStorage", key: "1"), [2, 3], strides: [0, 1])),
      ("n", Pickle.tensor(Pickle.storage(3, "HalfStorage", key: "1"), [0, 3])),
    ]))
  public static let mixedStorages = six + [(key: "1", data: [1, 2, 3, 4, 5, 6])]
  public static let mixedLegacy = legacy(
    Array(mixed[2...].dropLast()), [("0", 6, six[0].data), ("1", 3, mixedStorages[1].data)])
}
