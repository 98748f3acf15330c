import Bytes
import Tensors

/// The tensors of a checkpoint of `torch.distributed.checkpoint`, put together from the files that their parts are in.
struct DistributedAssembly {
  private(set) var tensors: [AssembledTensor] = []
  private let pool: FilePool
  private let positions: [TensorName: Int]
  private let parts: (InputFile) throws(Failure) -> [DistributedPart]
  /// What files of safetensors say of their parts, by the files' positions.
  private var headers: [Int: [TensorName: DistributedPart]] = [:]

  /// - Parameters:
  ///   - names: of the files, in the order of the pool.
  ///   - parts: what a file of safetensors says of its parts.
  init(
    _ names: [String], _ pool: FilePool, _ parts: @escaping (InputFile) throws(Failure) -> [DistributedPart]
  ) {
    self.pool = pool
    self.parts = parts
    positions = Dictionary(uniqueKeysWithValues: names.enumerated().map { (TensorName($1), $0) })
  }

  /// - Parameter name: what the tensor is called from here on.
  mutating func add(_ tensor: DistributedMetadata.Tensor, as name: String) throws(Failure) {
    do throws(Failure) {
      let info = try TensorInfo(name: TensorName(name), type: Self.type(tensor), shape: tensor.shape)
      var parts: [AssembledTensor.Part] = []
      for chunk in tensor.chunks {
        guard let position = positions[TensorName(chunk.file)] else {
          throw Failure(.internal, "no file '\(chunk.file)'")
        }
        let file = try pool.file(position)
        let view: PyTorchTensor
        if let range = chunk.range, chunk.isCompressed {
          parts.append(try Self.compressed(chunk, range, info, file, position))
          continue
        }
        do throws(Failure) {
          view = try self.view(of: chunk, TensorName(tensor.name), file, position)
        } catch { throw error.located(file: file.name) }
        parts.append(.init(file: position, view: view, offsets: chunk.offsets, sizes: chunk.sizes))
      }
      tensors.append(try AssembledTensor(info, parts: parts))
    } catch { throw error.located(tensor: tensor.name) }
  }

  private static func type(_ tensor: DistributedMetadata.Tensor) throws(Failure) -> ElementType {
    switch tensor.type {
    case .element(let type): return type
    case .named(let name):
      guard let type = ScalarType(dtype: name)?.element else {
        throw Failure(.unsupported, "has the type '\(name.printable(limit: 64))', which no other file can hold")
      }
      return type
    }
  }

  /// A part that is looked at only when it is read.
  private static func compressed(
    _ chunk: DistributedMetadata.Chunk, _ range: Range<Int>, _ whole: TensorInfo, _ file: InputFile, _ position: Int
  ) throws(Failure) -> AssembledTensor.Part {
    _ = try FileSlice(file, offset: range.lowerBound, length: range.count)
    let info = try TensorInfo(name: whole.name, type: whole.type, shape: chunk.sizes)
    let view = DistributedPart(info, offsets: chunk.offsets, start: range.lowerBound).view
    return .init(file: position, view: view, offsets: chunk.offsets, sizes: chunk.sizes, compressed: range)
  }

  private mutating func view(
    of chunk: DistributedMetadata.Chunk, _ name: TensorName, _ file: InputFile, _ position: Int
  ) throws(Failure) -> PyTorchTensor {
    if let range = chunk.range, try !Self.isSafetensors(file, at: range.lowerBound) {
      let archive = try PyTorchArchive(FileSlice(file, offset: range.lowerBound, length: range.count))
      let view = try archive.tensor(of: archive.graph.root, named: name)
      guard view.info.shape == chunk.sizes else { throw Self.wrong("shape \(view.info.shape)", "\(chunk.sizes)") }
      return view
    }
    guard let part = try header(of: file, position)[name] else {
      throw Failure(.malformed, "has no such tensor, by '\(DistributedMetadata.name)' a part of it")
    }
    guard part.offsets == chunk.offsets else { throw Self.wrong("offsets \(part.offsets)", "\(chunk.offsets)") }
    guard part.info.shape == chunk.sizes else { throw Self.wrong("shape \(part.info.shape)", "\(chunk.sizes)") }
    return part.view
  }

  private static func wrong(_ found: String, _ expected: String) -> Failure {
    Failure(.malformed, "has a part of \(found) where '\(DistributedMetadata.name)' says \(expected)")
  }

  private mutating func header(of file: InputFile, _ position: Int) throws(Failure) -> [TensorName: DistributedPart] {
    if let known = headers[position] { return known }
    var found: [TensorName: DistributedPart] = [:]
    for part in try parts(file) { found[part.info.name] = part }
    headers[position] = found
    return found
  }

  /// A length, then JSON; archives begin with letters.
  ///
  /// - Throws: `unsupported` where something stands before it, which neither PyTorch nor safetensors can read.
  private static func isSafetensors(_ file: InputFile, at offset: Int) throws(Failure) -> Bool {
    guard file.size - offset > 8, try file.bytes(in: offset + 8..<offset + 9) == [UInt8(ascii: "{")],
      try !file.bytes(in: offset..<offset + 2).elementsEqual("PK".utf8)
    else { return false }
    guard offset == 0 else {
      throw Failure(
        .unsupported,
        "has values that are no tensors before its safetensors, where no other reader finds them either: save the "
          + "tensors by themselves", offset: offset)
    }
    return true
  }
}
