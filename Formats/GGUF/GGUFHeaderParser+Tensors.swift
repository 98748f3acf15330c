import Bytes
import Tensors

extension GGUFHeaderParser {
  mutating func parseTensors(_ count: Int) throws(Failure) {
    var offsets: [Int] = []
    for _ in 0..<count {
      let offset = cursor.position
      offsets.append(offset)
      let name = try parseName()
      do throws(Failure) {
        try parseTensor(name)
      } catch {
        var failure = error.located(tensor: name.string)
        failure.offset = failure.offset ?? offset
        throw failure
      }
    }
    order = KeyOrder(count: tensors.count) { tensors[$0].name.string }
    if let (first, second) = order.firstDuplicate {
      throw Failure(
        .malformed, "the name occurs twice, first at offset \(offsets[first])", tensor: tensors[first].name.string,
        offset: offsets[second])
    }
  }

  private mutating func parseName() throws(Failure) -> TensorName {
    let offset = cursor.position
    let length = try cursor.integer(UInt64.self, "the length of a tensor's name")
    guard length <= UInt64(GGUFTensor.nameLimit) else {
      throw Failure(
        .malformed, "a tensor's name has \(length) bytes, allowed are \(GGUFTensor.nameLimit)", offset: offset)
    }
    let bytes = try cursor.bytes(Int(length), "a tensor's name")
    guard let name = String(validating: bytes, as: UTF8.self), !bytes.contains(0) else {
      throw Failure(.malformed, "a tensor's name is not UTF-8, or holds a NUL", offset: offset)
    }
    return TensorName(name)
  }

  private mutating func parseTensor(_ name: TensorName) throws(Failure) {
    let rank = try cursor.integer(UInt32.self, "the number of dimensions")
    guard rank <= UInt32(GGUFTensor.rankLimit) else {
      throw Failure(.malformed, "has \(rank) dimensions, allowed are \(GGUFTensor.rankLimit)")
    }
    var shape: [Int] = []
    for _ in 0..<rank {
      let declared = try cursor.integer(UInt64.self, "a dimension")
      guard let dimension = Int(exactly: declared) else {
        throw Failure(.malformed, "has a dimension of \(declared), allowed are \(Int.max)", offset: cursor.position - 8)
      }
      shape.append(dimension)
    }
    let number = try cursor.integer(UInt32.self, "a tensor's type")
    guard let type = GGMLType(rawValue: number) else {
      let offset = cursor.position - 4
      if let removed = GGMLType.removedName(number) {
        throw Failure(
          .unsupported, "has type \(number) (\(removed)), which ggml no longer reads either", offset: offset)
      }
      throw Failure(.malformed, "has the unknown type \(number)", offset: offset)
    }
    let offset = cursor.position
    let declared = try cursor.integer(UInt64.self, "a tensor's offset")
    let tensor = try GGUFTensor(name: name, type: type, shape: shape.reversed())
    let expected = try nextBegin()
    guard declared == UInt64(expected) else {
      throw Failure(.malformed, "data begins at \(declared) of the data section, expected \(expected)", offset: offset)
    }
    tensors.append(tensor)
    begins.append(expected)
  }

  /// Where the data of the next tensor must begin: the end of the last, rounded up.
  private func nextBegin() throws(Failure) -> Int {
    guard let last = tensors.last, let begin = begins.last else { return 0 }
    let (end, overflowed) = begin.addingReportingOverflow(last.byteCount)
    let aligned = end.aligned(to: alignment)
    guard !overflowed, let aligned else { throw Failure(.malformed, "the tensors before it overflow 63 bits") }
    return aligned
  }

  mutating func placeData() throws(Failure) {
    let size = cursor.file.size
    guard let start = cursor.position.aligned(to: alignment) else { throw Failure(.malformed, "the header overflows") }
    dataStart = tensors.isEmpty ? min(start, size) : start
    for (tensor, begin) in zip(tensors, begins) {
      let room = size - dataStart - begin
      guard tensor.byteCount <= room else {
        throw Failure(
          .malformed,
          "data is cut short: \(tensor.byteCount) bytes at \(begin) of the data section, the file has "
            + "\(max(0, size - dataStart)) after the header", tensor: tensor.name.string, offset: size)
      }
    }
    let end = dataStart + (begins.last ?? 0) + (tensors.last?.byteCount ?? 0)
    if let padded = end.aligned(to: alignment), size > padded {
      warnings.append(
        size - padded == 1
          ? "\(list: ["1"]) byte after the last tensor is ignored"
          : "\(list: ["\(size - padded)"]) bytes after the last tensor are ignored")
    }
  }
}

extension Int {
  /// Rounded up to a multiple of `alignment`; nil when that overflows.
  func aligned(to alignment: Int) -> Int? {
    let rest = self % alignment
    if rest == 0 { return self }
    let (sum, overflowed) = addingReportingOverflow(alignment - rest)
    return overflowed ? nil : sum
  }
}
