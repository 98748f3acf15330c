import Bytes
import Quantization
import Tensors

/// A weight of HQQ: codes less zero points, times scales, in the type that the model computes in, to which both the
/// difference and the product are rounded.
struct HQQWeight: PackedWeight {
  let info: TensorInfo
  private let module: HQQModule
  private let type: FloatType
  /// Bytes or words of codes.
  private let units: Int
  private let groups: Int

  var parts: [Int] { module.parts }
  var typeName: String { "HQQ-Q\(module.packing.width)" }
  var scheme: String { typeName.lowercased() }

  /// - Throws: `malformed` where the parts do not fit each other.
  init(_ module: HQQModule, _ type: FloatType) throws(Failure) {
    let packing = module.packing
    info = try TensorInfo(name: module.name, type: type.elementType, shape: module.shape)
    let count = info.elementCount
    guard count % module.groupSize == 0 else {
      throw Failure(.malformed, "has shape \(module.shape), which is not made of groups of \(module.groupSize)")
    }
    let (groups, tensors) = (count / module.groupSize, module.checkpoint.tensors)
    for (part, index) in [("scale", module.scale), ("zero", module.zero)] {
      guard FloatType(tensors[index].type) != nil, tensors[index].elementCount == groups else {
        throw Failure(
          .malformed,
          "'.\(part)' is \(tensors[index].type.name) of shape \(tensors[index].shape), needed are \(groups) of F16, BF16 "
            + "or F32")
      }
    }
    // Whatever type the codes are said to be of, as they may be viewed as floating-point numbers.
    let (rows, columns) = module.isTurned ? (module.groupSize, groups) : (groups, module.groupSize)
    let filled = rows / packing.fields + (rows % packing.fields > 0 ? 1 : 0)
    let needed = filled.multipliedReportingOverflow(by: columns)
    let bytes = tensors[module.codes].byteCount
    guard !needed.overflow, bytes % packing.unit == 0, bytes / packing.unit == needed.partialValue,
      packing == .words || rows % packing.fields == 0
    else {
      throw Failure(
        .malformed,
        "has \(bytes) bytes, which are not \(rows) × \(columns) codes in '\(packing.rawValue)'")
    }
    self.module = module
    self.type = type
    self.groups = groups
    units = needed.partialValue
  }

  func decode(
    _ elements: Range<Int>, of checkpoint: any StoredTensors, as type: FloatType,
    into destination: inout MutableRawSpan
  ) throws(Failure) {
    guard type == self.type || type == .f32 else {
      throw Failure(.internal, "is not dequantized to \(type.torchName)", tensor: info.name.string)
    }
    if elements.isEmpty { return }
    var numbers = ScratchBuffer(byteCount: 4 * elements.count)
    try readCodes(elements, checkpoint, into: &numbers)
    var factors = try spread(module.zero, elements, checkpoint)
    try combine(&numbers, factors, elements) { $0 - $1 }
    factors = try spread(module.scale, elements, checkpoint)
    try combine(&numbers, factors, elements) { $0 * $1 }
    do throws(Overflow) { try convert(numbers.bytes, from: .f32, to: type, into: &destination) } catch {
      throw Failure(.internal, "a value beyond \(type.torchName)", tensor: info.name.string)
    }
  }

  /// Codes as numbers of 32 bits.
  private func readCodes(
    _ elements: Range<Int>, _ checkpoint: any StoredTensors, into numbers: inout ScratchBuffer
  ) throws(Failure) {
    let (packing, unit) = (module.packing, module.packing.unit)
    let mask = UInt32(1) << UInt32(packing.width) - 1
    var output = numbers.mutableFloats
    var done = elements.lowerBound
    while done < elements.upperBound {
      let field = done / units
      let end = min(elements.upperBound, (field + 1) * units)
      let stored = try ScratchBuffer(
        checkpoint, module.codes, at: (done - field * units) * unit, count: (end - done) * unit)
      let bytes = stored.bytes
      let shift = UInt32((packing.fields - 1 - field) * packing.width)
      let first = done - elements.lowerBound
      if unit == 1 {
        for at in 0..<end - done {
          output[first + at] = Float(UInt32(bytes.load(at: at, as: UInt8.self)) >> shift & mask)
        }
      } else {
        for at in 0..<end - done { output[first + at] = Float(bytes.load(at: 4 * at, as: UInt32.self) >> shift & mask) }
      }
      done = end
    }
  }

  /// The scale or zero point of each element, in 32 bits.
  private func spread(
    _ part: Int, _ elements: Range<Int>, _ checkpoint: any StoredTensors
  ) throws(Failure) -> ScratchBuffer {
    var result = ScratchBuffer(byteCount: 4 * elements.count)
    var output = result.mutableFloats
    if module.isTurned {
      var done = elements.lowerBound
      while done < elements.upperBound {
        let start = done % groups
        let count = min(elements.upperBound - done, groups - start)
        let stored = try read(part, start..<start + count, checkpoint)
        let values = stored.floats
        let first = done - elements.lowerBound
        for at in 0..<count { output[first + at] = values[at] }
        done += count
      }
    } else {
      let size = module.groupSize
      let first = elements.lowerBound / size
      let stored = try read(part, first..<(elements.upperBound - 1) / size + 1, checkpoint)
      let values = stored.floats
      for group in values.indices {
        let start = max(elements.lowerBound, (first + group) * size)
        let end = min(elements.upperBound, (first + group + 1) * size)
        let value = values[group]
        for at in start..<end { output[at - elements.lowerBound] = value }
      }
    }
    return result
  }

  /// Scales or zero points in the type that is computed in, which a loader converts them to.
  private func read(_ part: Int, _ range: Range<Int>, _ checkpoint: any StoredTensors) throws(Failure) -> ScratchBuffer
  {
    let own = FloatType(checkpoint.tensors[part].type) ?? .f32
    let stored = try ScratchBuffer(
      checkpoint, part, at: own.byteCount * range.lowerBound, count: own.byteCount * range.count)
    var result = ScratchBuffer(byteCount: 4 * range.count)
    do throws(Overflow) {
      var room = result.mutableBytes
      try convert(stored.bytes, from: own, to: .f32, into: &room)
      if own != type { try Self.round(&result, to: type) }
    } catch {
      throw Failure(
        .malformed,
        "element \(range.lowerBound + error.index) is \(error.value), beyond the range of \(type.torchName)",
        file: checkpoint.location(of: part).file, tensor: checkpoint.tensors[part].name.string)
    }
    return result
  }

  private func combine(
    _ numbers: inout ScratchBuffer, _ others: borrowing ScratchBuffer, _ elements: Range<Int>,
    _ operation: (Float, Float) -> Float
  ) throws(Failure) {
    var values = numbers.mutableFloats
    let factors = others.floats
    for at in 0..<elements.count { values[at] = operation(values[at], factors[at]) }
    do throws(Overflow) { try Self.round(&numbers, to: type) } catch {
      throw Failure(
        .malformed,
        "element \(elements.lowerBound + error.index) is \(error.value), beyond the range of \(type.torchName)",
        tensor: info.name.string)
    }
  }

  private static func round(_ numbers: inout ScratchBuffer, to type: FloatType) throws(Overflow) {
    if type == .f32 { return }
    let count = numbers.bytes.byteCount / 4
    var narrow = ScratchBuffer(byteCount: type.byteCount * count)
    var room = narrow.mutableBytes
    try convert(numbers.bytes, from: .f32, to: type, into: &room)
    var back = numbers.mutableBytes
    try convert(narrow.bytes, from: type, to: .f32, into: &back)
  }
}
