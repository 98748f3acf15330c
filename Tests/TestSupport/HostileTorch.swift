/// Files of `torch.save` that must be refused, each beside the nearest that must not.
public enum HostileTorch {
  private static let w = Pickle.tensor(Pickle.storage(6), [2, 3])

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

  // MARK: - The archive

  public static let archives: [HostileFile] = [
    zip("a comment", "ends with a comment or other bytes") { $0.comment = [0x50, 0x4B] },
    zip("an end record in a comment", "ends with a comment") { zip in
      zip.comment = ZipBuilder([]).bytes + [0]
    },
    zip("bytes before the first entry", "is neither a ZIP archive nor a series of pickles") { $0.prefix = Array("MZ text".utf8) },
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
    zip("TorchScript's code", "made by torch.jit.save", exitCode: 69) { $0.entries.append(.init("m/code/x.py", [1])) },
    zip("no storage", "has no entry 'data/0'") { $0["data/0"].name = "m/data/1" },
    zip("a storage that is too short", "has 12 bytes by the pickle, its entry has 11") { $0["data/0"].data.removeLast() },
    zip("a storage that is too long", "has 12 bytes by the pickle, its entry has 13") { $0["data/0"].data.append(0) },
  ]

  /// Files of other kinds.
  public static let strangers: [HostileFile] = [
    ("7-Zip", [0x37, 0x7A, 0xBC, 0xAF, 0x27, 0x1C], "a 7-Zip archive", 65), ("gzip", [0x1F, 0x8B, 8], "a gzip archive", 65),
    ("text", Array("hello\n".utf8), "text that begins with 'hello'", 65), ("nothing", [], "an empty file", 65),
    ("a pickle alone", [0x80, 4, 0x95, 0, 0], "a Python pickle, which Nibble never executes", 69),
    ("GGUF", Array("GGUF".utf8) + [3, 0, 0, 0], "a GGUF file", 69),
    ("tar", [UInt8](repeating: 0x61, count: 257) + Array("ustar".utf8) + [UInt8](repeating: 0, count: 250), "is a tar archive", 69),
    ("bytes", [1, 2, 3, 0xFE], "neither a ZIP archive nor a series of pickles", 65),
  ].map { name, bytes, message, code in
    HostileFile(
      name, exitCode: code, message, bytes: { bytes },
      twin: { TorchBuilder.zip(TorchBuilder.example, [("0", TorchBuilder.exampleData)]) })
  }

  // MARK: - Tensors

  private static func tensor(
    _ name: String, _ message: String, exitCode: Int32 = 65, twin: [UInt8] = w, _ bytes: [UInt8]
  ) -> HostileFile {
    HostileFile(
      name, exitCode: exitCode, message, tensor: message.hasPrefix("storage") || message.hasPrefix("a ") ? nil : "w",
      bytes: { TorchBuilder.one(bytes) }, twin: { TorchBuilder.one(twin) })
  }

  private static func v3(_ name: String) -> [UInt8] {
    Pickle.tensor(
      Pickle.storage(24, "UntypedStorage", module: "torch.storage"), [6], more: [Pickle.global("torch", name)])
  }

  private static func typed(_ module: String, _ name: String) -> [UInt8] {
    Pickle.call(
      "torch._tensor", "_rebuild_from_type_v2",
      [
        Pickle.global("torch._utils", "_rebuild_tensor_v2"), Pickle.global(module, name),
        Pickle.tuple([
          Pickle.storage(6), Pickle.integer(0), Pickle.integers([6]), Pickle.integers([1]), [0x89],
          Pickle.orderedDictionary,
        ]), [0x7D],
      ])
  }

  private static func view(_ shape: [Int], _ strides: [Int], _ offset: Int = 0) -> [UInt8] {
    Pickle.tensor(Pickle.storage(6), shape, strides: strides, offset: offset)
  }

  private static func storage(_ fields: [[UInt8]]) -> [UInt8] { Pickle.tensor(Pickle.tuple(fields) + [0x51], [6]) }

  private static func key(_ key: String) -> [UInt8] { Pickle.tensor(Pickle.storage(6, key: key), [6]) }

  public static let tensors: [HostileFile] = [
    tensor("one element too many", "reach element 6 of storage 0, which has 6", twin: view([5], [1], 1), view([6], [1], 1)),
    tensor("a stride too far", "reach element 6", twin: view([2], [5]), view([2], [6])),
    tensor("an offset of 2⁶²", "reach element", twin: view([6], [1]), view([6], [1], 1 << 62)),
    tensor("strides that overflow", "reach element 9223372036854775807", view([3, 2], [1 << 62, 1])),
    tensor("a shape that overflows", "overflows", view([1 << 32, 1 << 32], [0, 0])),
    tensor("a negative shape", "shape: expected numbers that are not negative", view([-1], [1])),
    tensor("a negative stride", "strides: expected numbers", view([2], [-1])),
    tensor("a negative offset", "the offset -1", view([2], [1], -1)),
    tensor("strides of another rank", "has the shape [6], strides [1, 1]", view([6], [1, 1])),
    tensor("65 dimensions", "at most 64 numbers", twin: view([6] + [Int](repeating: 1, count: 63), [Int](repeating: 1, count: 64)), view([6] + [Int](repeating: 1, count: 64), [Int](repeating: 1, count: 65))),
    tensor("repeated without end", "repeats 24 stored bytes to", twin: view([1 << 24], [0]), view([1 << 24 + 1], [0])),
    tensor("a reference that is no tuple", "a reference to what lies outside", Pickle.tensor(Pickle.text("0") + [0x51], [6])),
    tensor("another tag", "a reference to what lies outside", storage([Pickle.text("module"), [0x4E], [0x4E], [0x4E], [0x4E]])),
    tensor("three fields", "a reference to what lies outside", storage([Pickle.text("storage"), [0x4E], [0x4E]])),
    tensor("a key with a way out", "a storage has the key '../x'", key("../x")),
    tensor("a key with a NUL", "a storage has the key", key("0\0")), tensor("no key", "a storage has the key ''", key("")),
    tensor("a storage of nobody knows what", "storage 0 is a 'os.system'", exitCode: 69, Pickle.tensor(Pickle.storage(6, "system", module: "os"), [6])),
    tensor("too many elements", "storage 0 has 4000000000 bytes by the pickle, its entry has 24", Pickle.tensor(Pickle.storage(1_000_000_000), [6])),
    tensor("elements that overflow", "storage 0 has 4611686018427387904 elements", Pickle.tensor(Pickle.storage(1 << 62), [6])),
    tensor("a view of a storage", "storage 0 is a view of another", exitCode: 69, Pickle.tensor(Pickle.storage(6, view: Pickle.tuple([])), [6])),
    tensor("no data", "on the device 'meta'", exitCode: 69, Pickle.tensor(Pickle.storage(6, location: "meta"), [6])),
    tensor("complex128", "has the type torch.complex128", exitCode: 69, twin: v3("float32"), v3("complex128")),
    tensor("an unknown type", "has the type 'torch.float9'", exitCode: 69, twin: v3("int32"), v3("float9")),
    tensor("a type of another module", "has no type", Pickle.tensor(Pickle.storage(24, "UntypedStorage", module: "torch.storage"), [6])),
    tensor("a conjugate view", "is a view that is computed ('conj')", exitCode: 69, Pickle.tensor(Pickle.storage(6), [6], more: [Pickle.dictionary([("conj", [0x88])])])),
    tensor("a sparse tensor", "is sparse", exitCode: 69, Pickle.call("torch._utils", "_rebuild_sparse_tensor", [])),
    tensor("a quantized tensor", "has a quantized type", exitCode: 69, Pickle.call("torch._utils", "_rebuild_qtensor", [])),
    tensor("a nested tensor", "is nested", exitCode: 69, Pickle.call("torch._utils", "_rebuild_nested_tensor", [])),
    tensor("a tensor around others", "is of a class around", exitCode: 69, Pickle.call("torch._utils", "_rebuild_wrapper_subclass", [])),
    tensor("any other function", "is made by 'torch._utils._rebuild_x'", exitCode: 69, Pickle.call("torch._utils", "_rebuild_x", [])),
    tensor("a DTensor", "one process's part of a DTensor", exitCode: 69, twin: typed("torch.nn.parameter", "Parameter"), typed("torch.distributed.tensor", "DTensor")),
    tensor("a class", "is of the class 'a.B'", exitCode: 69, twin: typed("torch", "Tensor"), typed("a", "B")),
    tensor("a ShardedTensor", "part of a ShardedTensor", exitCode: 69, Pickle.global("torch.distributed._shard.sharded_tensor.api", "ShardedTensor") + [0x29, 0x81]),
    tensor("a tensor with a state", "is changed after it is made", w + [0x7D, 0x62]),
    tensor("a tensor with an entry", "is changed after it is made", w + [0x4B, 0, 0x4E, 0x73]),
    tensor("a tensor with too few arguments", "has other arguments", Pickle.call("torch._utils", "_rebuild_tensor_v2", [])),
    tensor("parameters without end", "a parameter of a parameter", nested(9)),
  ]

  private static func nested(_ depth: Int) -> [UInt8] {
    (0..<depth).reduce(w) { inner, _ in Pickle.call("torch._utils", "_rebuild_parameter", [inner, [0x89], Pickle.orderedDictionary]) }
  }

  // MARK: - What is in the file

  private static func root(
    _ name: String, _ message: String, exitCode: Int32 = 65, twin: [UInt8]? = nil, _ value: [UInt8]
  ) -> HostileFile {
    HostileFile(
      name, exitCode: exitCode, message, bytes: { TorchBuilder.zip(Pickle.whole(value), TorchBuilder.six) },
      twin: { TorchBuilder.zip(Pickle.whole(twin ?? Pickle.dictionary([("w", w)])), TorchBuilder.six) })
  }

  private static let inner = Pickle.dictionary([("w", w)])

  public static let roots: [HostileFile] = [
    root("a tensor alone", "holds one tensor without a name", exitCode: 69, w),
    root("a list", "holds a list, expected a dictionary", exitCode: 69, Pickle.list([w])),
    root("a number", "holds a integer, expected a dictionary", exitCode: 69, Pickle.integer(3)),
    root("a model", "an object of the class 'm.Net'", exitCode: 69, Pickle.global("m", "Net") + [0x29, 0x81] + inner + [0x62]),
    root("a call", "an object of the class 'posix.system'", exitCode: 69, Pickle.call("posix", "system", [Pickle.text("id")])),
    root("no tensors", "has no tensors at its root", exitCode: 69, twin: Pickle.dictionary([("module", inner)]), Pickle.dictionary([("other", inner)])),
    root("tensors in two places", "has tensors at its root and under 'model'", Pickle.dictionary([("w", w), ("model", inner)])),
    root("two models", "has tensors under 'state_dict' and under 'module'", Pickle.dictionary([("module", inner), ("state_dict", inner)])),
    root("a tensor under a number", "has a tensor whose key is no text", [0x7D, 0x4B, 7] + w + [0x73]),
    root("a name twice", "key 'w' occurs twice", Pickle.dictionary([("w", w), ("w", w)])),
    root(
      "a storage of two types", "storage 0 is described in two ways",
      Pickle.dictionary([("w", w), ("v", Pickle.tensor(Pickle.storage(6, "IntStorage"), [6]))])),
  ]

  // MARK: - Files from before 1.6

  private static let six = TorchBuilder.six[0].data

  private static func legacy(_ name: String, _ message: String, exitCode: Int32 = 65, _ bytes: @escaping @Sendable () -> [UInt8]) -> HostileFile {
    HostileFile(name, exitCode: exitCode, message, bytes: bytes, twin: { TorchBuilder.legacy(inner, [("0", 6, six)]) })
  }

  public static let legacies: [HostileFile] = [
    legacy("another version", "another version", exitCode: 69) { TorchBuilder.legacy(inner, [("0", 6, six)], version: 1002) },
    legacy("big-endian", "big-endian machine", exitCode: 69) { TorchBuilder.legacy(inner, [("0", 6, six)], system: TorchBuilder.system(isLittle: false)) },
    legacy("no byte order", "does not say which byte order") { TorchBuilder.legacy(inner, [("0", 6, six)], system: Pickle.whole([0x7D])) },
    legacy("another count", "has 6 elements by the pickle and 5") { TorchBuilder.legacy(inner, [("0", 5, six)]) },
    legacy("a count of -1", "and 18446744073709551615") { TorchBuilder.legacy(inner, [("0", -1, six)]) },
    legacy("cut short", "is cut short: storage 0 needs 24 bytes, 23 remain") { TorchBuilder.legacy(inner, [("0", 6, six)]).dropLast() },
    legacy("cut before a storage", "is cut short before storage 0") { TorchBuilder.legacy(inner, [("0", 6, six)]).dropLast(25) },
    legacy("bytes behind", "1 byte follow the last storage") { TorchBuilder.legacy(inner, [("0", 6, six)]) + [0] },
    legacy("a storage too many", "lists the storage '1', which nothing refers to") { TorchBuilder.legacy(inner, [("0", 6, six), ("1", 0, [])]) },
    legacy("a storage twice", "storage 0 is listed twice") { TorchBuilder.legacy(inner, [("0", 6, six), ("0", 6, six)]) },
    legacy("no storage", "storage 0 is not in the list") { TorchBuilder.legacy(inner, []) },
    legacy("no list", "has no list of storages") { TorchBuilder.legacy(inner, []).dropLast(6) + Pickle.whole([0x4E]) },
  ]
}
