package import Bytes
package import ModelFamilies
import PackedWeights
import Quantization
package import Tensors

/// A model's tensors under other names and in another arrangement, as planned: the values of a source, moved.
package struct PlannedSource: TensorSource {
  package let base: any TensorSource
  package let weights: [PlannedWeight]
  package let tensors: [TensorInfo]
  private let turned: TransposedSource?

  /// Rows longer than this are read one by one where their order changes, shorter ones by the head.
  private static let longRow = 2048

  package init(_ base: any TensorSource, _ weights: [PlannedWeight]) throws(Failure) {
    self.base = base
    self.weights = weights
    var tensors: [TensorInfo] = []
    var matrices: Set<Int> = []
    tensors.reserveCapacity(weights.count)
    for weight in weights {
      let info = try TensorInfo(name: weight.name, type: Self.type(of: weight, in: base), shape: weight.shape)
      try Self.check(weight, info, base)
      if weight.transform == .transpose, case .stored(let index) = weight.source { matrices.insert(index) }
      tensors.append(info)
    }
    self.tensors = tensors
    turned = matrices.isEmpty ? nil : try TransposedSource(base, matrices)
  }

  /// The tensor whose bytes a tensor is, as they are stored; nil when they are moved or computed.
  package func origin(of index: Int) -> Int? {
    guard weights[index].transform == .none, case .stored(let stored) = weights[index].source else { return nil }
    return stored
  }

  private static func type(of weight: PlannedWeight, in base: any TensorSource) throws(Failure) -> ElementType {
    if case .addScalar = weight.transform { return .f32 }
    switch weight.source {
    case .stored(let index), .part(of: let index, index: _): return base.tensors[index].type
    case .values: return .f32
    case .stacked(let indices):
      guard let first = indices.first else {
        throw Failure(.internal, "a stack of nothing", tensor: weight.name.string)
      }
      let type = base.tensors[first].type
      if let other = indices.first(where: { base.tensors[$0].type != type }) {
        throw Failure(
          .malformed, "is \(base.tensors[other].type.name), other experts of its layer are \(type.name)",
          tensor: base.tensors[other].name.string)
      }
      return type
    }
  }

  /// The plan was made from shapes; what it says must add up before anything is read by it.
  private static func check(_ weight: PlannedWeight, _ info: TensorInfo, _ base: any TensorSource) throws(Failure) {
    let count: Int
    switch weight.source {
    case .stored(let index): count = base.tensors[index].elementCount
    case .values(let values): count = values.count
    case .stacked(let indices): count = indices.reduce(0) { $0.addingSaturated(base.tensors[$1].elementCount) }
    case .part(let index, _):
      let whole = base.tensors[index]
      count = whole.elementCount / max(1, whole.shape.first ?? 1)
    }
    var expected = info.elementCount
    if case .rowsOfEach(let rows) = weight.transform, case .stored(let index) = weight.source {
      let shape = base.tensors[index].shape
      guard shape.count > 1, rows.upperBound <= shape[1] else {
        throw Failure(.malformed, "has shape \(shape), needed are rows \(rows) of it", tensor: info.name.string)
      }
      expected = expected / max(1, rows.count) * shape[1]
    }
    guard count == expected else {
      throw Failure(.malformed, "has \(count) elements, needed is shape \(info.shape)", tensor: info.name.string)
    }
  }

  package func storedByteCount(of index: Int) -> Int {
    func part(_ stored: Int, _ count: Int, of whole: Int) -> Int {
      base.storedByteCount(of: stored).proportion(count, of: max(1, whole))
    }
    switch (weights[index].source, weights[index].transform) {
    case (.values, _): return 0
    case (.stored(let stored), .rowsOfEach(let rows)):
      return part(stored, rows.count, of: base.tensors[stored].shape.dropFirst().first ?? 1)
    case (.stored(let stored), _): return base.storedByteCount(of: stored)
    case (.part(let stored, _), _): return part(stored, 1, of: base.tensors[stored].shape.first ?? 1)
    case (.stacked(let indices), _):
      return indices.reduce(0) { $0.addingSaturated(base.storedByteCount(of: $1)) }
    }
  }

  package func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    if destination.isEmpty { return }
    let weight = weights[index]
    switch weight.transform {
    case .none: try readSource(of: weight, at: offset, into: &destination)
    case .transpose:
      guard let turned, case .stored(let stored) = weight.source else {
        throw Failure(.internal, "nothing to be transposed", tensor: weight.name.string)
      }
      try turned.read(stored, at: offset, into: &destination)
    case .permuteHeads(let heads):
      try readRows(index, heads, at: offset, into: &destination) { row, half in row % 2 * half + row / 2 }
    case .unpermuteHeads(let heads):
      try readRows(index, heads, at: offset, into: &destination) { row, half in 2 * (row % half) + row / half }
    case .addScalar(let scalar): try readSum(of: weight, scalar, at: offset, into: &destination)
    case .rowsOfEach(let rows): try readParts(index, rows, at: offset, into: &destination)
    }
  }

  /// Bytes of what a weight is made of, in the order of the source.
  private func readSource(
    of weight: PlannedWeight, at offset: Int, into destination: inout MutableRawSpan
  ) throws(Failure) {
    switch weight.source {
    case .stored(let index): try base.read(index, at: offset, into: &destination)
    case .part(let index, let part):
      let size = base.tensors[index].byteCount / max(1, base.tensors[index].shape.first ?? 1)
      try base.read(index, at: part * size + offset, into: &destination)
    case .values(let values):
      destination.copy(from: values.span.rawBytes.extracting(offset..<offset + destination.byteCount))
    case .stacked(let indices):
      guard let first = indices.first else { return }
      let size = base.tensors[first].byteCount
      var done = 0
      while done < destination.byteCount {
        let start = (offset + done) % size
        let count = min(size - start, destination.byteCount - done)
        var piece = destination.part(done..<done + count)
        try base.read(indices[(offset + done) / size], at: start, into: &piece)
        done += count
      }
    }
  }

  /// - Parameter place: the row of a head that is wanted as this row; `half` of the head's rows come first.
  private func readRows(
    _ index: Int, _ heads: Int, at offset: Int, into destination: inout MutableRawSpan,
    _ place: (_ row: Int, _ half: Int) -> Int
  ) throws(Failure) {
    let info = tensors[index]
    let weight = weights[index]
    let rows = info.shape.first ?? 0
    guard heads > 0, rows > 0, rows % (2 * heads) == 0 else {
      throw Failure(.malformed, "has \(rows) rows, which are not \(heads) heads of pairs", tensor: info.name.string)
    }
    let perHead = rows / heads
    let rowBytes = info.byteCount / rows
    let headBytes = perHead * rowBytes
    var head = ScratchBuffer(byteCount: rowBytes > Self.longRow ? 0 : headBytes)
    var headNumber: Int?
    var done = 0
    while done < destination.byteCount {
      let row = (offset + done) / rowBytes
      let start = (offset + done) % rowBytes
      let count = min(rowBytes - start, destination.byteCount - done)
      let number = row / perHead
      let source = place(row % perHead, perHead / 2)
      var piece = destination.part(done..<done + count)
      if rowBytes > Self.longRow {
        try readSource(of: weight, at: number * headBytes + source * rowBytes + start, into: &piece)
      } else {
        if headNumber != number {
          var room = head.mutableBytes
          try readSource(of: weight, at: number * headBytes, into: &room)
          headNumber = number
        }
        let from = source * rowBytes + start
        piece.copy(from: head.bytes.extracting(from..<from + count))
      }
      done += count
    }
  }

  private func readSum(
    of weight: PlannedWeight, _ scalar: Float, at offset: Int, into destination: inout MutableRawSpan
  ) throws(Failure) {
    guard case .stored(let index) = weight.source, let type = FloatType(base.tensors[index].type), offset % 4 == 0,
      destination.byteCount % 4 == 0
    else { throw Failure(.malformed, "is not floating point", tensor: weight.name.string) }
    let count = destination.byteCount / 4
    let values = try ScratchBuffer(base, index, at: offset / 4 * type.byteCount, count: count * type.byteCount)
    do throws(Overflow) {
      if type == .f32 {
        destination.copy(from: values.bytes)
      } else {
        try convert(values.bytes, from: type, to: .f32, into: &destination)
      }
    } catch { throw Failure(.malformed, "holds a value beyond the range of float32", tensor: weight.name.string) }
    for at in stride(from: 0, to: 4 * count, by: 4) {
      let value = Float(bitPattern: destination.bytes.load(at: at, as: UInt32.self))
      destination.storeBytes(of: value + scalar, toByteOffset: at, as: Float.self)
    }
  }

  private func readParts(
    _ index: Int, _ rows: Range<Int>, at offset: Int, into destination: inout MutableRawSpan
  ) throws(Failure) {
    guard case .stored(let stored) = weights[index].source else {
      throw Failure(.internal, "rows of nothing", tensor: weights[index].name.string)
    }
    let info = base.tensors[stored]
    let whole = info.byteCount / max(1, info.shape[0])
    let rowBytes = whole / max(1, info.shape[1])
    let part = rows.count * rowBytes
    var done = 0
    while done < destination.byteCount {
      let start = (offset + done) % part
      let count = min(part - start, destination.byteCount - done)
      var piece = destination.part(done..<done + count)
      let from = (offset + done) / part * whole + rows.lowerBound * rowBytes + start
      try base.read(stored, at: from, into: &piece)
      done += count
    }
  }
}
