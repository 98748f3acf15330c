// What else is in a file, and files from before 1.6.
extension HostileTorch {
  private static let w = Pickle.tensor(Pickle.storage(6), [2, 3])

  private static func root(
    _ name: String, _ message: String, exitCode: Int32 = 65, twin: [UInt8]? = nil, _ value: [UInt8]
  ) -> HostileFile {
    HostileFile(
      name, exitCode: exitCode, message, bytes: { TorchBuilder.zip(Pickle.whole(value), TorchBuilder.six) },
      twin: { TorchBuilder.zip(Pickle.whole(twin ?? Pickle.dictionary([("w", w)])), TorchBuilder.six) })
  }

  private static let vector = Pickle.tensor(Pickle.storage(6), [3])
  private static let inner = Pickle.dictionary([("w", w)])

  public static let roots: [HostileFile] = [
    root("a tensor alone", "holds one tensor without a name", exitCode: 69, w),
    root("a list", "holds a list, expected a dictionary", exitCode: 69, Pickle.list([w])),
    root("a number", "holds a integer, expected a dictionary", exitCode: 69, Pickle.integer(3)),
    root(
      "a model", "an object of the class 'm.Net'", exitCode: 69,
      Pickle.global("m", "Net") + [0x29, 0x81] + inner + [0x62]),
    root(
      "a call", "an object of the class 'posix.system'", exitCode: 69,
      Pickle.call("posix", "system", [Pickle.text("id")])),
    root(
      "no tensors", "has no tensors at its root", exitCode: 69, twin: Pickle.dictionary([("module", inner)]),
      Pickle.dictionary([("other", inner)])),
    root(
      "tensors in two places", "has tensors at its root and under 'model'",
      twin: Pickle.dictionary([("loss", vector), ("model", inner)]),
      Pickle.dictionary([("w", w), ("model", inner)])),
    root(
      "two models", "has tensors under 'state_dict' and under 'module'",
      Pickle.dictionary([("module", inner), ("state_dict", inner)])),
    root("a tensor under a number", "has a tensor whose key is no text", [0x7D, 0x4B, 7] + w + [0x73]),
    root(
      "a dictionary beside tensors", "the entry 'part' is a dictionary with tensors in it", exitCode: 69,
      twin: Pickle.dictionary([("w", w), ("part", Pickle.dictionary([("n", Pickle.integer(1))]))]),
      Pickle.dictionary([("w", w), ("part", inner)])),
    root(
      "a list beside tensors, in a list", "the entry 'parts' is a list with tensors in it", exitCode: 69,
      twin: Pickle.dictionary([("w", w), ("parts", Pickle.list([Pickle.list([Pickle.integer(1)])]))]),
      Pickle.dictionary([("w", w), ("parts", Pickle.list([Pickle.list([w])]))])),
    root(
      "an object beside tensors", "the entry 'net' is a object with tensors in it", exitCode: 69,
      twin: Pickle.dictionary([("w", w), ("optimizer", Pickle.list([w]))]),
      Pickle.dictionary([("w", w), ("net", Pickle.global("m", "Net") + [0x29, 0x81] + inner + [0x62])])),
    root(
      "a list in the model's dictionary", "the entry 'optimizer' is a list with tensors in it", exitCode: 69,
      twin: Pickle.dictionary([("model", inner), ("optimizer", Pickle.list([w]))]),
      Pickle.dictionary([("model", Pickle.dictionary([("w", w), ("optimizer", Pickle.list([w]))]))])),
    root("a name twice", "key 'w' occurs twice", Pickle.dictionary([("w", w), ("w", w)])),
    root(
      "a storage of two types", "storage 0 is described in two ways",
      Pickle.dictionary([("w", w), ("v", Pickle.tensor(Pickle.storage(6, "IntStorage"), [6]))])),
  ]

  // MARK: - Files from before 1.6

  private static let six = TorchBuilder.six[0].data

  private static func legacy(
    _ name: String, _ message: String, exitCode: Int32 = 65, _ bytes: @escaping @Sendable () -> [UInt8]
  ) -> HostileFile {
    HostileFile(name, exitCode: exitCode, message, bytes: bytes, twin: { TorchBuilder.legacy(inner, [("0", 6, six)]) })
  }

  public static let legacies: [HostileFile] = [
    legacy("another version", "another version", exitCode: 69) {
      TorchBuilder.legacy(inner, [("0", 6, six)], version: 1002)
    },
    legacy("big-endian", "big-endian machine", exitCode: 69) {
      TorchBuilder.legacy(inner, [("0", 6, six)], system: TorchBuilder.system(isLittle: false))
    },
    legacy("no byte order", "does not say which byte order") {
      TorchBuilder.legacy(inner, [("0", 6, six)], system: Pickle.whole([0x7D]))
    },
    legacy("another count", "has 6 elements by the pickle and 5") { TorchBuilder.legacy(inner, [("0", 5, six)]) },
    legacy("a count of -1", "and 18446744073709551615") { TorchBuilder.legacy(inner, [("0", -1, six)]) },
    legacy("cut short", "is cut short: storage 0 needs 24 bytes, 23 remain") {
      TorchBuilder.legacy(inner, [("0", 6, six)]).dropLast()
    },
    legacy("cut before a storage", "is cut short before storage 0") {
      TorchBuilder.legacy(inner, [("0", 6, six)]).dropLast(25)
    },
    legacy("bytes behind", "1 byte follow the last storage") { TorchBuilder.legacy(inner, [("0", 6, six)]) + [0] },
    legacy("a storage too many", "lists the storage '1', which nothing refers to") {
      TorchBuilder.legacy(inner, [("0", 6, six), ("1", 0, [])])
    },
    legacy("a storage twice", "storage 0 is listed twice") {
      TorchBuilder.legacy(inner, [("0", 6, six), ("0", 6, six)])
    },
    legacy("no storage", "storage 0 is not in the list") { TorchBuilder.legacy(inner, []) },
    legacy("no list", "has no list of storages") { TorchBuilder.legacy(inner, []).dropLast(6) + Pickle.whole([0x4E]) },
  ]
}
