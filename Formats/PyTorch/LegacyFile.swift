import Bytes

/// A file as PyTorch wrote it before 1.6: five pickles, then the storages.
struct LegacyFile {
  private static let protocolVersion = 1001
  /// The pickles beside that of the object are a few dozen bytes each.
  private static let small = PickleLimits(byteCount: 1 << 20, itemCount: 1000)

  let graph: PickleGraph
  private(set) var storages: PyTorchStorages

  /// Whether a file begins with a pickle of the number that these files begin with.
  static func isLikely(_ beginning: [UInt8], _ slice: FileSlice) throws(Failure) -> Bool {
    guard beginning.count > 2, beginning[0] == 0x80, (2...5).contains(beginning[1]) else { return false }
    // The number within the first pickle, which may have a frame around it.
    let number = beginning.prefix(32)
    let magic = PickleMachine.legacyMagic
    return (2..<max(2, number.count - magic.count + 1)).contains { number[$0..<$0 + magic.count].elementsEqual(magic) }
  }

  init(_ slice: FileSlice, limits: PickleLimits) throws(Failure) {
    var position = 0
    func next(_ limits: PickleLimits) throws(Failure) -> PickleGraph {
      let rest = try FileSlice(slice.file, offset: slice.offset + position, length: slice.length - position)
      let (graph, length) = try PickleMachine.readFirst(rest, limits: limits)
      position += length
      return graph
    }
    let magic = try next(Self.small)
    guard case .legacyMagic = magic.value(magic.root) else {
      throw Failure(.malformed, "does not begin with the number that files of torch.save begin with", offset: 0)
    }
    let version = try next(Self.small)
    guard version.integer(version.root) == Self.protocolVersion else {
      throw Failure(.unsupported, "has another version of PyTorch's legacy format than \(Self.protocolVersion)")
    }
    try Self.check(try next(Self.small))
    graph = try next(limits)
    storages = try PyTorchStorages(graph)
    let keys = try next(limits)
    try place(keys, slice, from: position)
  }

  /// The machine that the file was written on.
  private static func check(_ system: PickleGraph) throws(Failure) {
    guard let order = system.value(of: "little_endian", in: system.root),
      case .boolean(let isLittle) = system.value(order)
    else { throw Failure(.malformed, "does not say which byte order it has", offset: system.baseOffset) }
    guard isLittle else {
      throw Failure(
        .unsupported, "was saved on a big-endian machine; load and save it again with PyTorch on a little-endian one")
    }
  }

  /// Behind the list of keys stands each one's storage: its number of elements, then they.
  private mutating func place(_ keys: PickleGraph, _ slice: FileSlice, from start: Int) throws(Failure) {
    var position = start
    guard case .list(let list) = keys.value(keys.root) else {
      throw Failure(.malformed, "has no list of storages", offset: keys.baseOffset)
    }
    for item in list {
      guard let key = keys.text(item), let index = storages.position(of: key) else {
        let shown = keys.text(item)?.printable(limit: 64) ?? "no text"
        throw Failure(
          .malformed, "lists the storage '\(shown)', which nothing refers to and whose size is unknown",
          offset: keys.baseOffset)
      }
      let storage = storages.list[index]
      guard storages.starts[index] == nil, !storage.isMeta else {
        throw Failure(.malformed, "storage \(key) is listed twice, or has no data", offset: keys.baseOffset)
      }
      let offset = slice.offset + position
      guard slice.length - position >= 8 else {
        throw Failure(.malformed, "is cut short before storage \(key)", offset: offset)
      }
      let count = try slice.bytes(in: position..<position + 8).little(UInt64.self, at: 0)
      guard count == UInt64(storage.count) else {
        throw Failure(
          .malformed, "storage \(key) has \(storage.count) elements by the pickle and \(count) by the file",
          offset: offset)
      }
      position += 8
      guard storage.byteCount <= slice.length - position else {
        throw Failure(
          .malformed,
          "is cut short: storage \(key) needs \(storage.byteCount) bytes, \(slice.length - position) remain",
          offset: offset + 8)
      }
      storages.place(index, at: offset + 8)
      position += storage.byteCount
    }
    guard position == slice.length else {
      throw Failure(
        .malformed, "\(counted(slice.length - position, "byte")) follow the last storage, allowed are none",
        offset: slice.offset + position)
    }
    for (index, storage) in storages.list.enumerated() where storages.starts[index] == nil && !storage.isMeta {
      throw Failure(.malformed, "storage \(storage.key) is not in the list of storages", offset: keys.baseOffset)
    }
  }
}
