import Bytes
import Tensors

/// What `.metadata` of `torch.distributed.checkpoint` says: which tensors there are, in which parts, and where each
/// part is stored.
struct DistributedMetadata {
  /// One part of a tensor and the bytes of a file that it is saved in.
  struct Chunk {
    let offsets: [Int]
    let sizes: [Int]
    let file: String
    /// Of an archive of `torch.save`, in the file; nil for a part that is found by its tensor's name.
    let range: Range<Int>?
    /// Whether the archive is compressed.
    let isCompressed: Bool
  }

  enum ValueType {
    /// As PyTorch calls it, such as `torch.bfloat16`.
    case named(String)
    case element(ElementType)
  }

  /// A key of a dictionary, or a position in a list.
  enum Step: Hashable {
    case key(String)
    case position(Int)
  }

  struct Tensor {
    let name: String
    /// Where it stood in the dictionary that was saved, by the keys of dictionaries in dictionaries; nil where that is
    /// not told.
    let path: [Step]?
    let type: ValueType
    let shape: [Int]
    let chunks: [Chunk]
  }

  static let name = ".metadata"
  /// Bytes: a run of thousands of processes lists every part of every tensor.
  static let limits = PickleLimits(byteCount: 512 << 20)
  /// One frame of Zstandard is the archive.
  private static let zstandard = "stream.zstd/1"
  static let tensorLimit = 1_000_000

  let tensors: [Tensor]
  /// Entries that are no tensors: steps, learning rates, states of loaders; with their paths.
  let others: [(name: String, path: [Step]?)]

  private typealias Reference = PickleGraph.Reference

  init(_ file: InputFile) throws(Failure) {
    let graph = try PickleGraph(FileSlice(file), limits: Self.limits)
    var tensors: [Tensor] = []
    var others: [(name: String, path: [Step]?)] = []
    do throws(Failure) {
      let root = try Self.attributes(graph, graph.root, of: "Metadata")
      guard let listed = root["state_dict_metadata"].flatMap(graph.pairs),
        let places = root["storage_data"].flatMap(graph.pairs)
      else { throw Failure(.malformed, "lacks 'state_dict_metadata' or 'storage_data': is it one of PyTorch?") }
      let stored = try Self.places(graph, places)
      let paths = Self.paths(graph, root["planner_data"])
      for (key, value) in listed {
        guard let name = graph.text(key) else { throw Failure(.malformed, "has an entry without a name") }
        guard Self.type(graph, value) == "TensorStorageMetadata" else {
          others.append((name, paths[name]))
          continue
        }
        guard tensors.count < Self.tensorLimit else {
          throw Failure(.malformed, "has more than the \(Self.tensorLimit) tensors allowed")
        }
        do throws(Failure) {
          tensors.append(try Self.tensor(graph, name, paths[name], value, stored))
        } catch { throw error.located(tensor: name) }
      }
    } catch { throw error.located(file: file.name) }
    self.tensors = tensors
    self.others = others
  }

  // MARK: - Objects

  /// The name of an object's class without its module, which has moved between releases.
  private static func type(_ graph: PickleGraph, _ reference: Reference) -> String? {
    graph.call(reference)?.name.split(separator: ".").last.map(String.init)
  }

  private static func attributes(
    _ graph: PickleGraph, _ reference: Reference, of expected: String
  ) throws(Failure) -> [String: Reference] {
    guard type(graph, reference) == expected, let state = graph.state(reference), let pairs = graph.pairs(state) else {
      throw Failure(.malformed, "has another value where a \(expected) of torch.distributed.checkpoint belongs")
    }
    var found: [String: Reference] = [:]
    for (key, value) in pairs { if let name = graph.text(key) { found[name] = value } }
    return found
  }

  private static func integers(
    _ graph: PickleGraph, _ reference: Reference?, _ what: String
  ) throws(Failure) -> [Int] {
    var list = reference
    if let call = reference.flatMap(graph.call), call.name == "torch.Size" { list = call.arguments.first }
    guard let items = list.flatMap(graph.items), items.count <= 64 else {
      throw Failure(.malformed, "has no list of numbers for \(what)")
    }
    var numbers: [Int] = []
    for item in items {
      guard let number = graph.integer(item), number >= 0 else {
        throw Failure(.malformed, "has a number for \(what) that is none, or is negative")
      }
      numbers.append(number)
    }
    return numbers
  }

  /// What the default planner says of names that it made by joining keys.
  private static func paths(_ graph: PickleGraph, _ reference: Reference?) -> [String: [Step]] {
    var paths: [String: [Step]] = [:]
    for (key, value) in reference.flatMap(graph.pairs) ?? [] {
      guard let name = graph.text(key), let items = graph.items(value) else { continue }
      let steps = items.compactMap { graph.text($0).map(Step.key) ?? graph.integer($0).map(Step.position) }
      if steps.count == items.count, !steps.isEmpty { paths[name] = steps }
    }
    return paths
  }

  // MARK: - Places

  private struct Place {
    let file: String
    let range: Range<Int>
    let isCompressed: Bool
  }

  private struct Key: Hashable {
    let name: String
    let offsets: [Int]
  }

  private static func places(
    _ graph: PickleGraph, _ pairs: [(key: Reference, value: Reference)]
  ) throws(Failure) -> [Key: Place] {
    var found: [Key: Place] = [:]
    for (key, value) in pairs {
      let index = try attributes(graph, key, of: "MetadataIndex")
      guard let name = index["fqn"].flatMap(graph.text) else { throw Failure(.malformed, "has a place of nothing") }
      // Entries that are no tensors have no offset.
      guard index["offset"].map({ graph.call($0) != nil || graph.items($0) != nil }) == true else { continue }
      do throws(Failure) {
        let offsets = try integers(graph, index["offset"], "the offset of a part")
        let place = try place(graph, value)
        guard found.updateValue(place, forKey: Key(name: name, offsets: offsets)) == nil else {
          throw Failure(.malformed, "has two places for its part at \(offsets)")
        }
      } catch { throw error.located(tensor: name) }
    }
    return found
  }

  private static func place(_ graph: PickleGraph, _ reference: Reference) throws(Failure) -> Place {
    let info = try attributes(graph, reference, of: "_StorageInfo")
    guard let file = info["relative_path"].flatMap(graph.text), let offset = info["offset"].flatMap(graph.integer),
      let length = info["length"].flatMap(graph.integer), offset >= 0, length >= 0
    else { throw Failure(.malformed, "has a part without file, offset and length") }
    guard InputDirectory.isPlainComponent(file) else {
      throw Failure(.malformed, "has a part in '\(file.printable(limit: 300))', which is not a plain name of a file")
    }
    let (end, overflowed) = offset.addingReportingOverflow(length)
    guard !overflowed else { throw Failure(.malformed, "has a part of \(length) bytes at \(offset), which overflows") }
    let transforms = (info["transform_descriptors"].flatMap(graph.items) ?? []).map { graph.text($0) ?? "?" }
    guard transforms.isEmpty || transforms == [zstandard] else {
      throw Failure(
        .unsupported,
        "was transformed when it was saved (\(transforms.joined(separator: ", ").printable(limit: 64))), known is "
          + "\(zstandard): save it without other extensions")
    }
    return Place(file: file, range: offset..<end, isCompressed: !transforms.isEmpty)
  }

  private static func tensor(
    _ graph: PickleGraph, _ name: String, _ path: [Step]?, _ reference: Reference, _ stored: [Key: Place]
  ) throws(Failure) -> Tensor {
    let tensor = try attributes(graph, reference, of: "TensorStorageMetadata")
    let shape = try integers(graph, tensor["size"], "its shape")
    guard let properties = tensor["properties"], let state = graph.state(properties),
      let dtype = graph.items(state)?.first.flatMap(graph.name)
        ?? graph.value(of: "dtype", in: state).flatMap(graph.name)
    else { throw Failure(.malformed, "has no dtype") }
    guard let listed = tensor["chunks"].flatMap(graph.items) else { throw Failure(.malformed, "has no list of parts") }
    var chunks: [Chunk] = []
    for item in listed {
      let chunk = try attributes(graph, item, of: "ChunkStorageMetadata")
      let offsets = try integers(graph, chunk["offsets"], "the offset of a part")
      let sizes = try integers(graph, chunk["sizes"], "the shape of a part")
      if sizes.contains(0), sizes.count == shape.count, shape.allSatisfy({ $0 > 0 }) { continue }
      guard let place = stored[Key(name: name, offsets: offsets)] else {
        throw Failure(.malformed, "has a part at \(offsets) that is stored nowhere")
      }
      chunks.append(
        Chunk(
          offsets: offsets, sizes: sizes, file: place.file, range: place.range, isCompressed: place.isCompressed))
    }
    return Tensor(name: name, path: path, type: .named(dtype), shape: shape, chunks: chunks)
  }
}
