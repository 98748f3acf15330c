public import Bytes
import Quantization
public import Tensors

/// A model with adapters merged into it, computed as it is read: `W + Σ s·B·A`, and what else adapters do.
///
/// Memory is a few rows per reader and the factors of the tensors under way.
public struct MergedSource: TensorSource {
  public let tensors: [TensorInfo]
  public let items: [MergedTensor]
  let base: any TensorSource
  let cache = FactorCache()
  private let meter = ChangeMeter()
  let columns = ColumnFactors()

  /// - Parameter base: what the origins of the items count in; weights `[outputs, inputs]` unless the deltas'
  ///   places say otherwise.
  /// - Throws: `unsupported` when the library that multiplies matrices is not there.
  init(_ items: [MergedTensor], base: any TensorSource) throws(Failure) {
    self.items = items
    self.base = base
    tensors = items.map(\.info)
    if items.contains(where: { !$0.deltas.isEmpty }) { try LowRankFactors.checkLibrary() }
  }

  /// ‖W′ − W‖ / ‖W‖ of a tensor that has been read; nil when it was not, or replaced one of another shape.
  public func relativeChange(of index: Int) -> Double? { meter.relativeChange(of: index) }

  /// Bytes of the tensor in the base's files: those read of adapters have no single place in the result.
  public func storedByteCount(of index: Int) -> Int {
    let item = items[index]
    return (item.baseIndex ?? item.replaced).map(base.storedByteCount) ?? 0
  }

  public func read(
    _ index: Int, at offset: Int, into destination: inout MutableRawSpan
  ) throws(Failure) {
    try compute(index, at: offset, into: &destination, nil)
  }

  public func read(
    _ index: Int, at offset: Int, into destination: inout MutableRawSpan, original: OriginalBytes
  ) throws(Failure) {
    try compute(index, at: offset, into: &destination, original)
  }

  private func compute(
    _ index: Int, at offset: Int, into destination: inout MutableRawSpan, _ original: OriginalBytes?
  ) throws(Failure) {
    let item = items[index]
    let width = max(1, item.info.type.bitWidth / 8)
    guard offset % width == 0, destination.byteCount % width == 0 else {
      throw Failure(.internal, "a piece cuts an element in two", tensor: item.info.name.string)
    }
    let elements = offset / width..<(offset + destination.byteCount) / width
    if elements.isEmpty { return }
    do throws(Failure) {
      if item.hasSums {
        try merge(index, item, elements, into: &destination, original)
      } else {
        try pass(index, item, elements, into: &destination, original)
      }
      if !item.rows.isEmpty, !item.rowsComeFirst, let type = FloatType(elementType: item.info.type) {
        try replaceRows(index, item, elements, in: &destination, as: type)
      }
    } catch { throw error.located(tensor: item.info.name.string) }
  }

  // MARK: - Where values come from

  func origin(of item: MergedTensor) -> (source: any TensorSource, index: Int) {
    switch item.origin {
    case .base(let index): (base, index)
    case .adapter(let adapter, let index): (adapter.source, index)
    }
  }

  private func type(of item: MergedTensor) throws(Failure) -> (stored: FloatType, merged: FloatType) {
    let (source, index) = origin(of: item)
    guard let stored = FloatType(elementType: source.tensors[index].type),
      let merged = FloatType(elementType: item.info.type)
    else { throw Failure(.unsupported, "is \(source.tensors[index].type.name), which is not computed with") }
    return (stored, merged)
  }

  /// The origin's own bytes for some elements.
  private func stored(
    _ item: MergedTensor, _ elements: Range<Int>, _ type: FloatType
  ) throws(Failure) -> ScratchBuffer {
    let (source, index) = origin(of: item)
    return try ScratchBuffer(
      source, index, at: elements.lowerBound * type.byteCount, count: elements.count * type.byteCount)
  }

  // MARK: - Unchanged, converted or replaced

  private func pass(
    _ index: Int, _ item: MergedTensor, _ elements: Range<Int>, into destination: inout MutableRawSpan,
    _ original: OriginalBytes?
  ) throws(Failure) {
    let (source, position) = origin(of: item)
    if source.tensors[position].type == item.info.type {
      let width = destination.byteCount / elements.count
      try source.read(position, at: elements.lowerBound * width, into: &destination)
      original?.set(destination.bytes)
    } else {
      let (from, to) = try type(of: item)
      let values = try stored(item, elements, from)
      original?.set(values.bytes)
      do throws(Overflow) { try convert(values.bytes, from: from, to: to, into: &destination) } catch {
        throw Failure(
          .malformed,
          "element \(elements.lowerBound + error.index) is \(error.value), beyond the range of \(to.torchName)")
      }
    }
    if !item.rows.isEmpty { try measure(index, item, elements, nil) }
    guard let replaced = item.replaced else { return }
    let old = try floats(base, replaced, elements)
    let new = try floats(source, position, elements)
    let (before, after) = (old.floats, new.floats)
    var sums = ChangeSums()
    for at in 0..<elements.count {
      let value = Double(before[at])
      let change = Double(after[at]) - value
      sums.add(ChangeSums(values: value * value, changes: change * change))
    }
    meter.add(sums, tensor: index, at: elements.lowerBound)
  }

  func floats(
    _ source: any TensorSource, _ index: Int, _ elements: Range<Int>
  ) throws(Failure) -> ScratchBuffer {
    let info = source.tensors[index]
    guard let type = FloatType(elementType: info.type) else {
      throw Failure(.unsupported, "is \(info.type.name), which is not computed with")
    }
    let values = try ScratchBuffer(
      source, index, at: elements.lowerBound * type.byteCount, count: elements.count * type.byteCount)
    var result = ScratchBuffer(byteCount: 4 * elements.count)
    var room = result.mutableBytes
    // Nothing is too large for 32 bits.
    try? convert(values.bytes, from: type, to: .f32, into: &room)
    return result
  }

  // MARK: - Sums

  private func merge(
    _ index: Int, _ item: MergedTensor, _ elements: Range<Int>, into destination: inout MutableRawSpan,
    _ original: OriginalBytes?
  ) throws(Failure) {
    let (from, to) = try type(of: item)
    let length = item.rowLength
    let rows = elements.lowerBound / length..<(elements.upperBound - 1) / length + 1
    var delta = ScratchBuffer(byteCount: 4 * rows.count * length)
    var total = delta.mutableFloats
    try sum(index, item, rows, into: &total)
    var values = try stored(item, elements, from)
    original?.set(values.bytes)
    if item.rowsComeFirst {
      var room = values.mutableBytes
      try replaceRows(index, item, elements, in: &room, as: from)
    }
    let first = elements.lowerBound - rows.lowerBound * length
    let own = delta.floats.extracting(first..<first + elements.count)
    do throws(NonFinite) {
      let sums = try addDelta(
        values.bytes, as: from, delta: own, roundedTo: item.deltaType, into: &destination, as: to)
      meter.add(sums, tensor: index, at: elements.lowerBound)
    } catch {
      let position = elements.lowerBound + error.index
      throw Failure(
        .malformed,
        error.value.isFinite
          ? "element \(position) becomes \(error.value), beyond the range of \(to.torchName) (--dtype chooses another)"
          : "element \(position) becomes \(error.value.isNaN ? .nan : error.value); a merged model must be finite")
    }
  }

  /// All deltas of some whole rows, added up; the same whatever order the adapters came in.
  private func sum(
    _ index: Int, _ item: MergedTensor, _ rows: Range<Int>, into total: inout MutableSpan<Float>
  ) throws(Failure) {
    if total.isEmpty { return }
    let length = item.rowLength
    let terms = try orderedTerms(of: item)
    var isEmpty = true
    for term in terms where term.delta.magnitude == nil {
      term.delta.multiply(term.factors, rows: rows, rowLength: length, adding: !isEmpty, into: &total)
      isEmpty = false
    }
    if isEmpty { total.update(repeating: 0) }
    for vector in try orderedVectors(of: item) {
      for row in rows { total[row - rows.lowerBound] += vector.scale * vector.values[row] }
    }
    for term in terms {
      guard let magnitude = term.delta.magnitude else { continue }
      try addDirection(index, term.position, term.delta, magnitude, item, rows, to: &total)
    }
  }

  // MARK: - Rows

  private func replaceRows(
    _ index: Int, _ item: MergedTensor, _ elements: Range<Int>, in destination: inout MutableRawSpan,
    as to: FloatType
  ) throws(Failure) {
    let length = item.rowLength
    let width = to.byteCount
    for replacement in item.rows {
      let source = replacement.adapter.source
      for row in elements.lowerBound / length...(elements.upperBound - 1) / length {
        guard let own = replacement.rowOf[row] else { continue }
        let part = (row * length..<(row + 1) * length).clamped(to: elements)
        let from = own * length + part.lowerBound - row * length
        let values = try floats(source, replacement.tensor, from..<from + part.count)
        let start = (part.lowerBound - elements.lowerBound) * width
        var room = destination.part(start..<start + part.count * width)
        try measure(index, item, part, values.floats)
        do throws(Overflow) { try convert(values.bytes, from: .f32, to: to, into: &room) } catch {
          throw Failure(
            .malformed,
            "element \(part.lowerBound + error.index) becomes \(error.value), beyond the range of \(to.torchName)")
        }
      }
    }
  }

  /// Counts the origin's values, or the change to what an adapter has for them.
  private func measure(
    _ index: Int, _ item: MergedTensor, _ elements: Range<Int>, _ new: Span<Float>?
  ) throws(Failure) {
    let (source, position) = origin(of: item)
    let old = try floats(source, position, elements)
    let before = old.floats
    var sums = ChangeSums()
    for at in 0..<elements.count {
      let value = Double(before[at])
      if let new {
        let change = Double(new[at]) - value
        sums.changes += change * change
      } else {
        sums.values += value * value
      }
    }
    meter.add(sums, tensor: index, at: elements.lowerBound)
  }
}
