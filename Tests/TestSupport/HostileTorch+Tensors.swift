// Tensors, and the storages that they are views of.
extension HostileTorch {
  private static let w = Pickle.tensor(Pickle.storage(6), [2, 3])

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
    tensor(
      "one element too many", "reach element 6 of storage 0, which has 6", twin: view([5], [1], 1), view([6], [1], 1)),
    tensor("a stride too far", "reach element 6", twin: view([2], [5]), view([2], [6])),
    tensor("an offset of 2⁶²", "reach element", twin: view([6], [1]), view([6], [1], 1 << 62)),
    tensor("strides that overflow", "reach element 9223372036854775807", view([3, 2], [1 << 62, 1])),
    tensor("a shape that overflows", "overflows", view([1 << 32, 1 << 32], [0, 0])),
    tensor("a negative shape", "shape: expected numbers that are not negative", view([-1], [1])),
    tensor("a negative stride", "strides: expected numbers", view([2], [-1])),
    tensor("a negative offset", "the offset -1", view([2], [1], -1)),
    tensor("strides of another rank", "has the shape [6], strides [1, 1]", view([6], [1, 1])),
    tensor(
      "65 dimensions", "at most 64 numbers",
      twin: view([6] + [Int](repeating: 1, count: 63), [Int](repeating: 1, count: 64)),
      view([6] + [Int](repeating: 1, count: 64), [Int](repeating: 1, count: 65))),
    tensor("repeated without end", "repeats 24 stored bytes to", twin: view([1 << 24], [0]), view([1 << 24 + 1], [0])),
    tensor(
      "a reference that is no tuple", "a reference to what lies outside", Pickle.tensor(Pickle.text("0") + [0x51], [6])),
    tensor(
      "another tag", "a reference to what lies outside",
      storage([Pickle.text("module"), [0x4E], [0x4E], [0x4E], [0x4E]])),
    tensor("three fields", "a reference to what lies outside", storage([Pickle.text("storage"), [0x4E], [0x4E]])),
    tensor("a key with a way out", "a storage has the key '../x'", key("../x")),
    tensor("a key with a NUL", "a storage has the key", key("0\0")),
    tensor("no key", "a storage has the key ''", key("")),
    tensor(
      "a storage of nobody knows what", "storage 0 is a 'os.system'", exitCode: 69,
      Pickle.tensor(Pickle.storage(6, "system", module: "os"), [6])),
    tensor(
      "too many elements", "storage 0 has 4000000000 bytes by the pickle, its entry has 24",
      Pickle.tensor(Pickle.storage(1_000_000_000), [6])),
    tensor(
      "elements that overflow", "storage 0 has 4611686018427387904 elements",
      Pickle.tensor(Pickle.storage(1 << 62), [6])),
    tensor(
      "a view of a storage", "storage 0 is a view of another", exitCode: 69,
      Pickle.tensor(Pickle.storage(6, view: Pickle.tuple([])), [6])),
    tensor("no data", "on the device 'meta'", exitCode: 69, Pickle.tensor(Pickle.storage(6, location: "meta"), [6])),
    tensor("complex128", "has the type torch.complex128", exitCode: 69, twin: v3("float32"), v3("complex128")),
    tensor("an unknown type", "has the type 'torch.float9'", exitCode: 69, twin: v3("int32"), v3("float9")),
    tensor(
      "a type of another module", "has no type",
      Pickle.tensor(Pickle.storage(24, "UntypedStorage", module: "torch.storage"), [6])),
    tensor(
      "a conjugate view", "is a view that is computed ('conj')", exitCode: 69,
      Pickle.tensor(Pickle.storage(6), [6], more: [Pickle.dictionary([("conj", [0x88])])])),
    tensor("a sparse tensor", "is sparse", exitCode: 69, Pickle.call("torch._utils", "_rebuild_sparse_tensor", [])),
    tensor(
      "a quantized tensor", "has a quantized type", exitCode: 69, Pickle.call("torch._utils", "_rebuild_qtensor", [])),
    tensor("a nested tensor", "is nested", exitCode: 69, Pickle.call("torch._utils", "_rebuild_nested_tensor", [])),
    tensor(
      "a tensor around others", "is of a class around", exitCode: 69,
      Pickle.call("torch._utils", "_rebuild_wrapper_subclass", [])),
    tensor(
      "any other function", "is made by 'torch._utils._rebuild_x'", exitCode: 69,
      Pickle.call("torch._utils", "_rebuild_x", [])),
    tensor(
      "a DTensor", "one process's part of a DTensor", exitCode: 69, twin: typed("torch.nn.parameter", "Parameter"),
      typed("torch.distributed.tensor", "DTensor")),
    tensor("a class", "is of the class 'a.B'", exitCode: 69, twin: typed("torch", "Tensor"), typed("a", "B")),
    tensor(
      "a ShardedTensor", "part of a ShardedTensor", exitCode: 69,
      Pickle.global("torch.distributed._shard.sharded_tensor.api", "ShardedTensor") + [0x29, 0x81]),
    tensor("a tensor with a state", "is changed after it is made", w + [0x7D, 0x62]),
    tensor("a tensor with an entry", "is changed after it is made", w + [0x4B, 0, 0x4E, 0x73]),
    tensor(
      "a tensor with too few arguments", "has other arguments", Pickle.call("torch._utils", "_rebuild_tensor_v2", [])),
    tensor("parameters without end", "a parameter of a parameter", nested(9)),
  ]

  private static func nested(_ depth: Int) -> [UInt8] {
    (0..<depth).reduce(w) { inner, _ in
      Pickle.call("torch._utils", "_rebuild_parameter", [inner, [0x89], Pickle.orderedDictionary])
    }
  }
}
