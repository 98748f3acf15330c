import Bytes
import Tensors

/// The tensors of files that ranks saved one by one, put together from the parts that DTensors say they are.
struct RankedAssembly {
  private(set) var tensors: [AssembledTensor] = []
  private(set) var warnings: [Warning] = []
  /// Positions in `tensors` of those that are the very same, two or more at a time.
  private(set) var tied: [[Int]] = []

  private enum Copy {
    case divided(DTensor)
    /// The same for every rank.
    case whole(PyTorchTensor)
  }

  private let worldSize: Int
  private var fileNames: [String] = []
  /// In the order of the first rank's file.
  private var names: [TensorName] = []
  /// For each tensor its copy of each rank, by rank.
  private var copies: [TensorName: [Copy]] = [:]

  private static let tensorLimit = 1_000_000

  init(worldSize: Int) { self.worldSize = worldSize }

  /// The file of the next rank.
  mutating func add(_ file: InputFile) throws(Failure) {
    let archive = try PyTorchArchive(file)
    let graph = archive.graph
    guard let pairs = graph.pairs(graph.root) else {
      throw Failure(
        .malformed, "holds a \(graph[graph.root].kind), expected a dictionary of tensors", file: file.name)
    }
    let rank = fileNames.count
    fileNames.append(file.name)
    var ignored: [String] = []
    var count = 0
    for (key, value) in pairs {
      guard let text = graph.text(key), archive.isTensor(value) else {
        ignored.append(graph.text(key) ?? "\(graph[key].kind)")
        continue
      }
      count += 1
      let name = TensorName(text)
      let copy: Copy
      if let divided = try archive.dtensor(of: value, named: name) {
        copy = .divided(divided)
      } else {
        copy = .whole(try archive.tensor(of: value, named: name))
      }
      if rank == 0 {
        guard names.count < Self.tensorLimit else {
          throw Failure(.malformed, "has more than the \(Self.tensorLimit) tensors allowed", file: file.name)
        }
        names.append(name)
        copies[name] = [copy]
      } else {
        guard copies[name] != nil else {
          throw Failure(.malformed, "is not in '\(fileNames[0])', as if of another run", file: file.name, tensor: text)
        }
        copies[name]?.append(copy)
      }
    }
    guard count == names.count else {
      let lost = names.first { copies[$0]?.count ?? 0 <= rank }
      throw Failure(
        .malformed, "lacks a tensor that '\(fileNames[0])' has, as if of another run", file: file.name,
        tensor: lost?.string)
    }
    if !ignored.isEmpty {
      warnings.append("\(list: [file.name]): ignored \(names: ignored), which are no tensors of the model")
    }
  }

  /// Once all ranks are there.
  mutating func finish() throws(Failure) {
    warnings = Warning.grouped(warnings)
    var ties: [[View]: [Int]] = [:]
    for name in names {
      do throws(Failure) {
        let tensor = try assembled(name, copies[name] ?? [])
        if tensor.info.elementCount > 0 {
          ties[tensor.parts.map { View(file: $0.file, view: $0.view.view) }, default: []].append(tensors.count)
        }
        tensors.append(tensor)
      } catch { throw error.located(tensor: name.string) }
    }
    tied = ties.values.filter { $0.count > 1 }.sorted { $0[0] < $1[0] }
  }

  private struct View: Hashable {
    let file: Int
    let view: PyTorchTensor.View
  }

  // MARK: - One tensor

  private func assembled(_ name: TensorName, _ copies: [Copy]) throws(Failure) -> AssembledTensor {
    guard case .divided(let first) = copies.first else { return try whole(copies) }
    var divided: [DTensor] = []
    for (rank, copy) in copies.enumerated() {
      guard case .divided(let tensor) = copy, tensor.shape == first.shape, tensor.placements == first.placements,
        tensor.local.info.type == first.local.info.type
      else {
        throw Failure(
          .malformed, "is of another type, shape or division than in '\(fileNames[0])'", file: fileNames[rank])
      }
      divided.append(tensor)
    }
    let info = try TensorInfo(name: name, type: first.local.info.type, shape: first.shape)
    return try AssembledTensor(info, parts: parts(of: first, divided))
  }

  /// Every rank has the same.
  private func whole(_ copies: [Copy]) throws(Failure) -> AssembledTensor {
    var first: PyTorchTensor?
    for (rank, copy) in copies.enumerated() {
      guard case .whole(let view) = copy, view.info == first?.info ?? view.info else {
        throw Failure(.malformed, "is of another type or shape than in '\(fileNames[0])'", file: fileNames[rank])
      }
      first = first ?? view
    }
    guard let first else { throw Failure(.internal, "no rank has it") }
    let shape = first.info.shape
    return try AssembledTensor(
      first.info, parts: [.init(file: 0, view: first, offsets: shape.map { _ in 0 }, sizes: shape)])
  }

  /// The ranks whose parts are the whole: of those that have the same one, the first.
  private func parts(of first: DTensor, _ divided: [DTensor]) throws(Failure) -> [AssembledTensor.Part] {
    var places: [[Int]] = []
    for (rank, tensor) in divided.enumerated() { places.append(try coordinates(of: tensor, rank)) }
    /// Ranks along each dimension of the mesh that divides the tensor, 1 of others.
    let mesh = first.placements.indices.map { axis in
      first.placements[axis] == .replicate ? 1 : (places.map { $0[axis] }.max() ?? 0).addingSaturated(1)
    }
    var owners: [[Int]: Int] = [:]
    var parts: [AssembledTensor.Part] = []
    for (rank, tensor) in divided.enumerated() {
      let place = first.placements.indices.map { first.placements[$0] == .replicate ? 0 : places[rank][$0] }
      let box = Self.box(first, mesh, place)
      // An empty part has the shape that it was made with.
      guard tensor.local.info.shape == box.sizes || tensor.local.info.elementCount == 0 && box.sizes.contains(0) else {
        throw Failure(
          .malformed,
          "has a part of shape \(tensor.local.info.shape), by its shape \(first.shape) and its division it is "
            + "\(box.sizes)",
          file: fileNames[rank])
      }
      guard owners[place] == nil else { continue }
      owners[place] = rank
      parts.append(.init(file: rank, view: tensor.local, offsets: box.offsets, sizes: box.sizes))
    }
    return parts
  }

  private func coordinates(of tensor: DTensor, _ rank: Int) throws(Failure) -> [Int] {
    let count = tensor.placements.count
    if let coordinates = tensor.coordinates, coordinates.count == count,
      coordinates.allSatisfy({ (0..<worldSize).contains($0) })
    {
      return coordinates
    }
    // Along one dimension the ranks are in their order.
    guard count == 1 else {
      throw Failure(
        .unsupported, "is divided among \(count) dimensions of ranks, and nothing says where in them this one is",
        file: fileNames[rank])
    }
    return [rank]
  }

  /// What a rank has, where each of n ranks has ⌈size / n⌉ as long as there are any.
  private static func box(_ tensor: DTensor, _ mesh: [Int], _ place: [Int]) -> (offsets: [Int], sizes: [Int]) {
    var offsets = tensor.shape.map { _ in 0 }
    var sizes = tensor.shape
    for (axis, placement) in tensor.placements.enumerated() {
      guard case .shard(let dimension) = placement else { continue }
      let size = sizes[dimension]
      let share = size / mesh[axis] + (size % mesh[axis] == 0 ? 0 : 1)
      // No product of these passes the whole world's shares, which may be one more than the size has elements.
      let start = share == 0 ? 0 : min(size, place[axis] > size / share ? size : share * place[axis])
      offsets[dimension] += start
      sizes[dimension] = min(share, size - start)
    }
    return (offsets, sizes)
  }
}
