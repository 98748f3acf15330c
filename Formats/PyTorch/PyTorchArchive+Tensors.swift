public import Bytes
public import Tensors

extension PyTorchArchive {
  private static let rankLimit = 64
  /// An expanded tensor of more bytes than its storage has may have this many.
  private static let expansionLimit = 64 << 20

  /// Whether a value of the graph is a tensor of any kind, also of one that is not read.
  public func isTensor(_ reference: PickleGraph.Reference) -> Bool {
    guard let (name, _) = graph.call(reference) else { return false }
    return name.hasPrefix("torch._utils._rebuild_") || name.hasPrefix("torch._tensor._rebuild_")
      || name.hasPrefix("torch.tensor._rebuild_") || name.hasSuffix(".ShardedTensor")
  }

  /// The tensor that a value of the graph describes.
  ///
  /// - Parameter name: what it is called from here on.
  /// - Throws: `unsupported` for one of another kind than a plain tensor, `malformed` for a view of what is not there.
  public func tensor(of reference: PickleGraph.Reference, named name: TensorName) throws(Failure) -> PyTorchTensor {
    do throws(Failure) {
      return try build(unwrapped(reference), name)
    } catch { throw error.located(file: slice.file.name, tensor: name.string) }
  }

  typealias Call = (name: String, arguments: [PickleGraph.Reference])

  // MARK: - Which function makes it of what

  /// A parameter or a tensor with attributes is the tensor in it.
  private func unwrapped(_ reference: PickleGraph.Reference) throws(Failure) -> Call {
    var current = try call(reference)
    for _ in 0..<8 {
      switch current.name {
      case "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state":
        guard let inner = current.arguments.first else { throw wrongArguments(current) }
        current = try call(inner)
      case "torch._tensor._rebuild_from_type_v2", "torch._tensor._rebuild_from_type",
        "torch.tensor._rebuild_from_type":
        guard current.arguments.count == 4, let function = graph.name(current.arguments[0]),
          let type = graph.name(current.arguments[1]), let arguments = graph.items(current.arguments[2])
        else { throw wrongArguments(current) }
        guard ["torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"].contains(type) else {
          throw Self.refused(type: type)
        }
        current = (function, arguments)
      default: return current
      }
    }
    throw Failure(.malformed, "is a parameter of a parameter of a parameter …")
  }

  private func call(_ reference: PickleGraph.Reference) throws(Failure) -> Call {
    guard let call = graph.call(reference) else {
      throw Failure(.malformed, "is a \(graph[reference].kind), expected a tensor")
    }
    guard graph[reference].kind == .call else { throw Self.refused(type: call.name) }
    guard graph.state(reference) == nil, graph.appended(reference).isEmpty, graph.entries(reference).isEmpty else {
      throw Failure(.malformed, "is changed after it is made, which PyTorch does to no tensor")
    }
    return call
  }

  private static func refused(type: String) -> Failure {
    let shown = type.printable(limit: 256)
    if type.hasSuffix(".DTensor") {
      return Failure(
        .unsupported,
        "is one process's part of a DTensor: gather it before saving, with full_tensor() or a full state_dict")
    }
    if type.hasSuffix(".ShardedTensor") {
      return Failure(
        .unsupported, "is one process's part of a ShardedTensor: save with StateDictType.FULL_STATE_DICT instead")
    }
    return Failure(
      .unsupported, "is of the class '\(shown)', whose contents only its own code knows: save it as a plain tensor")
  }

  private static func refused(function: String) -> Failure {
    let kinds = [
      "_rebuild_sparse_tensor": "is sparse: save it as tensor.to_dense()",
      "_rebuild_sparse_csr_tensor": "is sparse: save it as tensor.to_dense()",
      "_rebuild_qtensor": "has a quantized type of PyTorch: save it as tensor.dequantize()",
      "_rebuild_nested_tensor": "is nested: save its parts as tensors of their own",
      "_rebuild_wrapper_subclass": "is of a class around other tensors: save it as a plain tensor",
      "_rebuild_meta_tensor_no_storage": "has no data, it is on the device 'meta': save the model after loading it",
    ]
    let known = kinds[function.split(separator: ".").last.map(String.init) ?? ""]
    return Failure(
      .unsupported,
      known ?? "is made by '\(function.printable(limit: 256))', which is not read: save it as a plain tensor")
  }

  func wrongArguments(_ call: Call) -> Failure {
    Failure(.malformed, "'\(call.name.printable(limit: 256))' has other arguments than PyTorch gives it")
  }

  // MARK: - A view of a storage

  /// `(storage, offset, shape, strides, requires_grad, hooks[, dtype][, metadata])`.
  private func build(_ call: Call, _ name: TensorName) throws(Failure) -> PyTorchTensor {
    let counts: ClosedRange<Int>
    switch call.name {
    case "torch._utils._rebuild_tensor": counts = 4...4
    case "torch._utils._rebuild_tensor_v2": counts = 6...7
    case "torch._utils._rebuild_tensor_v3": counts = 7...8
    default: throw Self.refused(function: call.name)
    }
    let arguments = call.arguments
    guard counts.contains(arguments.count), let position = storages.position(of: arguments[0]),
      let offset = graph.integer(arguments[1])
    else { throw wrongArguments(call) }
    let isTyped = counts.lowerBound == 7
    if arguments.count == counts.upperBound, counts.upperBound > 4 {
      try check(metadata: arguments[counts.upperBound - 1])
    }
    let storage = storages.list[position]
    let type = try type(of: storage, isTyped ? arguments[6] : nil)
    guard let element = type.element else {
      throw Failure(
        .unsupported, "has the type torch.\(type.name ?? "?"), which no other file can hold: save it in another")
    }
    let shape = try sizes(arguments[2], "shape")
    let strides = try sizes(arguments[3], "strides")
    guard shape.count == strides.count, offset >= 0 else {
      throw Failure(.malformed, "has the shape \(shape), strides \(strides) and the offset \(offset)")
    }
    let info = try TensorInfo(name: name, type: element, shape: Self.values(shape, type))
    guard let start = storages.starts[position] else {
      throw Failure(.unsupported, "has no data, it is on the device 'meta': save the model after loading it")
    }
    try check(storage, type, shape, strides, offset, info)
    return PyTorchTensor(
      info: info, shape: shape, strides: strides, offset: offset, storageKey: storage.key,
      storageRange: start..<start + storage.byteCount, width: type.width)
  }

  /// The shape in values, where several are in an element.
  private static func values(_ shape: [Int], _ type: ScalarType) throws(Failure) -> [Int] {
    guard type.packed > 1 else { return shape }
    guard let last = shape.last else { throw Failure(.unsupported, "is a scalar of \(type.packed) packed values") }
    let (values, overflowed) = last.multipliedReportingOverflow(by: type.packed)
    guard !overflowed else { throw Failure(.malformed, "shape \(shape) overflows") }
    return shape.dropLast() + [values]
  }

  private func type(of storage: PyTorchStorage, _ dtype: PickleGraph.Reference?) throws(Failure) -> ScalarType {
    guard let dtype else {
      guard storage.type != .untyped else { throw Failure(.malformed, "has no type, and its storage has none") }
      return storage.type
    }
    guard let name = graph.name(dtype) else { throw Failure(.malformed, "has no type") }
    guard let type = ScalarType(dtype: name) else {
      throw Failure(.unsupported, "has the type '\(name.printable(limit: 128))', which is not known")
    }
    guard storage.type == .untyped || storage.type == type else {
      throw Failure(.malformed, "has the type '\(name)', its storage another")
    }
    return type
  }

  func sizes(_ reference: PickleGraph.Reference, _ what: String) throws(Failure) -> [Int] {
    var list = reference
    if let call = graph.call(reference), call.name == "torch.Size", let only = call.arguments.first,
      call.arguments.count == 1
    {
      list = only
    }
    guard graph[list].kind == .tuple, let items = graph.items(list), items.count <= Self.rankLimit else {
      throw Failure(.malformed, "\(what): expected a tuple of at most \(Self.rankLimit) numbers")
    }
    var sizes: [Int] = []
    for item in items {
      guard let size = graph.integer(item), size >= 0 else {
        throw Failure(.malformed, "\(what): expected numbers that are not negative")
      }
      sizes.append(size)
    }
    return sizes
  }

  /// What is done to the values when they are read, and not in the storage.
  private func check(metadata reference: PickleGraph.Reference) throws(Failure) {
    for (key, value) in graph.pairs(reference) ?? [] {
      guard case .boolean(true) = graph.value(value) else { continue }
      let what = graph.text(key)?.printable(limit: 64) ?? "?"
      throw Failure(
        .unsupported, "is a view that is computed ('\(what)'): save it as tensor.resolve_conj().resolve_neg()")
    }
  }

  private func check(
    _ storage: PyTorchStorage, _ type: ScalarType, _ shape: [Int], _ strides: [Int], _ offset: Int, _ info: TensorInfo
  ) throws(Failure) {
    guard info.elementCount > 0 else { return }
    // The last element that is reached.
    var last = offset
    for (count, stride) in Swift.zip(shape, strides) {
      let (reach, first) = (count - 1).multipliedReportingOverflow(by: stride)
      let (sum, second) = last.addingReportingOverflow(reach)
      last = first || second ? .max : sum
    }
    let count = storage.byteCount / type.width
    guard last < count else {
      throw Failure(
        .malformed,
        "shape \(shape), strides \(strides) and offset \(offset) reach element \(last) of storage \(storage.key), "
          + "which has \(count)")
    }
    guard info.byteCount <= max(storage.byteCount, Self.expansionLimit) else {
      throw Failure(
        .malformed, "repeats \(storage.byteCount) stored bytes to \(info.byteCount), allowed are \(Self.expansionLimit)"
      )
    }
  }
}
