import Bytes
import Tensors

extension DistributedMetadata {
  /// What files say themselves, one by one: a tensor reaches as far as its parts do.
  ///
  /// - Throws: `malformed` where parts of a tensor have another type or number of dimensions than others.
  init(_ files: [(file: String, parts: [DistributedPart])]) throws(Failure) {
    var order: [TensorName] = []
    var found: [TensorName: (info: TensorInfo, shape: [Int], chunks: [Chunk])] = [:]
    for (file, parts) in files {
      for part in parts {
        let name = part.info.name
        if found[name] == nil {
          order.append(name)
          found[name] = (part.info, part.info.shape.map { _ in 0 }, [])
        }
        guard var whole = found[name] else { continue }
        guard whole.shape.count == part.offsets.count, whole.info.type == part.info.type else {
          throw Failure(
            .malformed,
            "is \(part.info.type.name) of \(counted(part.offsets.count, "dimension")) here, in "
              + "'\(whole.chunks.first?.file ?? file)' \(whole.info.type.name) of \(whole.shape.count)", file: file,
            tensor: name.string)
        }
        for (axis, offset) in part.offsets.enumerated() {
          whole.shape[axis] = max(whole.shape[axis], offset.addingSaturated(part.info.shape[axis]))
        }
        whole.chunks.append(
          Chunk(offsets: part.offsets, sizes: part.info.shape, file: file, range: nil, isCompressed: false))
        found[name] = whole
      }
    }
    tensors = order.compactMap { name in
      found[name].map {
        Tensor(name: name.string, path: nil, type: .element($0.info.type), shape: $0.shape, chunks: $0.chunks)
      }
    }
    others = []
  }
}
