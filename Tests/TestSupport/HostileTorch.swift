/// Files of `torch.save` that must be refused, each beside the nearest that must not.
public enum HostileTorch {
  private static func zip(
    _ name: String, _ message: String, exitCode: Int32 = 65, _ edit: @escaping @Sendable (inout ZipBuilder) -> Void
  ) -> HostileFile {
    HostileFile(
      name, exitCode: exitCode, message,
      bytes: { TorchBuilder.zip(TorchBuilder.example, [("0", TorchBuilder.exampleData)], edit: edit) },
      twin: { TorchBuilder.zip(TorchBuilder.example, [("0", TorchBuilder.exampleData)]) })
  }

  /// What a storage of 12 bytes has in the extra field of 64 bits.
  private static func field64(_ values: [UInt64]) -> [UInt8] {
    Pickle.little(1, 2) + Pickle.little(8 * values.count, 2) + values.flatMap { Pickle.little($0, 8) }
  }

  public static let archives: [HostileFile] = [
    zip("a comment", "ends with a comment or other bytes") { $0.comment = [0x50, 0x4B] },
    zip("an end record in a comment", "ends with a comment") { zip in
      zip.comment = ZipBuilder([]).bytes + [0]
    },
    zip("bytes before the first entry", "is neither a ZIP archive nor a series of pickles") {
      $0.prefix = Array("MZ text".utf8)
    },
    zip("an archive's signature before the first entry", "has 4 bytes before it") { $0.prefix = [0x50, 0x4B, 3, 4] },
    zip("a directory beyond the end", "directory has") { $0.directoryOffset = 1 << 40 },
    zip("a directory of no bytes", "directory has 0 bytes") { $0.directorySize = 0 },
    zip("a directory that wraps around", "directory has") { $0.directoryOffset = .max - 3 },
    zip("too many entries", "declares 9 entries and has 6") { $0.count = 9 },
    zip("too few entries", "has more than the 3 entries") { $0.count = 3 },
    zip("2⁶⁴-1 entries", "has 18446744073709551615 entries") { $0.count = .max },
    zip("end records that disagree", "two end records") { $0.count16 = 5 },
    zip("several disks", "one of several parts", exitCode: 69) { $0.diskCount = 2 },
    zip("65535 entries and no record of 64 bits", "has no 64-bit end record") {
      $0.has64 = false
      $0.count = 65_535
    },
    zip("another name before the data", "has another name there") { $0["data.pkl"].localName = "m/evil.pkl" },
    zip("another size before the data", "has another size or checksum") { $0["data/0"].localSize = 11 },
    zip("another checksum before the data", "has another size or checksum") { $0["data/0"].localCRC = 1 },
    zip("other flags before the data", "another method or other flags") { $0["data/0"].localFlags = 0x0800 },
    zip("no entry where one should be", "begin where no entry does") { $0["data/0"].signature = 0 },
    zip("an encrypted entry", "is encrypted", exitCode: 69) { $0["data/0"].flags |= 1 },
    zip("patched data", "has the flags 0x828", exitCode: 69) { $0["data/0"].flags |= 0x20 },
    zip("strong encryption", "is encrypted", exitCode: 69) { $0["data/0"].flags |= 0x40 },
    zip("a masked directory", "is encrypted", exitCode: 69) { $0["data/0"].flags |= 0x2000 },
    zip("a compressed entry", "is compressed (method 8)", exitCode: 69) { $0["data/0"].method = 8 },
    zip("a pickle with another checksum", "'m/data.pkl' is damaged") { $0["data.pkl"].crc = 5 },
    zip("extra fields beyond the end", "reach into what follows it") { $0["serialization_id"].localExtra = 65_535 },
    zip("data moved by extra fields", "reaches into what follows it") { $0["data/0"].localExtra = 30 },
    zip("two entries of a name", "two entries of the name 'm/data.pkl'") {
      $0.entries.append(.init("m/data.pkl", [0x80, 2, 0x4E, 0x2E]))
    },
    zip("entries that overlap", "begin where there is no room for it") { zip in
      zip.entries.append(ZipBuilder.Entry("m/data/7", []))
      zip.entries[6].offset = 0
    },
    zip("an entry that reaches into the next", "reaches into what follows") { $0["data/0"].size = 4000 },
    zip("a way out", "which is no path inside it") { $0["serialization_id"].name = "m/../../x" },
    zip("a path from the top", "which is no path inside it") { $0["serialization_id"].name = "/etc/x" },
    zip("a path of Windows", "which is no path inside it") { $0["serialization_id"].name = "m\\x" },
    zip("a NUL in a name", "which is no path inside it") { $0["serialization_id"].name = "m/x\0y" },
    zip("a size of 64 bits that is not there", "lacks a size of 64 bits") { $0["data/0"].size = .max },
    zip("a size of 64 bits cut short", "lacks a size of 64 bits") {
      $0["data/0"].size = .max
      $0["data/0"].extra = field64([12])
    },
    zip("a size of 64 bits beside one of 32", "has a size of 64 bits and one of 32") {
      $0["data/0"].extra = field64([12])
    },
    zip("two fields of 64 bits", "has broken extra fields") { $0["data/0"].extra = field64([]) + field64([]) },
    zip("an extra field beyond the end", "has broken extra fields") { $0["data/0"].extra = [9, 9, 200, 0] },
    zip("two pickles", "has two pickles") { $0.entries.append(.init("n/data.pkl", [0x80, 2, 0x4E, 0x2E])) },
    zip("no pickle", "without a 'data.pkl'", exitCode: 69) { $0["data.pkl"].name = "m/data.txt" },
    zip("a pickle in no folder", "without a 'data.pkl'", exitCode: 69) { $0["data.pkl"].name = "data.pkl" },
    zip("no version", "has no entry 'version'") { $0["/version"].name = "m/x" },
    zip("version 999", "has the version '999'", exitCode: 69) { $0["/version"].data = Array("999\n".utf8) },
    zip("a version that is no number", "has the version 'x'", exitCode: 69) { $0["/version"].data = [0x78] },
    zip("big-endian", "big-endian machine", exitCode: 69) { $0["byteorder"].data = Array("big".utf8) },
    zip("another byte order", "has the byte order 'middle'") { $0["byteorder"].data = Array("middle".utf8) },
    zip("TorchScript", "made by torch.jit.save", exitCode: 69) { $0.entries.append(.init("m/constants.pkl", [1])) },
    zip("TorchScript's code, compressed", "made by torch.jit.save", exitCode: 69) { zip in
      zip.entries.append(.init("m/code/x.py", [1]))
      zip["x.py"].method = 8
    },
    zip("no storage", "has no entry 'data/0'") { $0["data/0"].name = "m/data/1" },
    zip("a storage that is too short", "has 12 bytes by the pickle, its entry has 11") {
      $0["data/0"].data.removeLast()
    },
    zip("a storage that is too long", "has 12 bytes by the pickle, its entry has 13") { $0["data/0"].data.append(0) },
  ]

  /// Files of other kinds.
  public static let strangers: [HostileFile] = [
    ("7-Zip", [0x37, 0x7A, 0xBC, 0xAF, 0x27, 0x1C], "a 7-Zip archive", 65),
    ("gzip", [0x1F, 0x8B, 8], "a gzip archive", 65),
    ("text", Array("hello\n".utf8), "text that begins with 'hello'", 65), ("nothing", [], "an empty file", 65),
    ("a pickle alone", [0x80, 4, 0x95, 0, 0], "a Python pickle, which Nibble never executes", 69),
    ("GGUF", Array("GGUF".utf8) + [3, 0, 0, 0], "a GGUF file", 69),
    (
      "tar", [UInt8](repeating: 0x61, count: 257) + Array("ustar".utf8) + [UInt8](repeating: 0, count: 250),
      "is a tar archive", 69
    ),
    ("bytes", [1, 2, 3, 0xFE], "neither a ZIP archive nor a series of pickles", 65),
  ].map { name, bytes, message, code in
    HostileFile(
      name, exitCode: code, message, bytes: { bytes },
      twin: { TorchBuilder.zip(TorchBuilder.example, [("0", TorchBuilder.exampleData)]) })
  }
}
