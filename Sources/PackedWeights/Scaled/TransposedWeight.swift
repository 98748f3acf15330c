import Bytes
import Quantization
import Tensors

/// A packed weight whose matrices lie the other way round than the model has them.
struct TransposedWeight: PackedWeight {
  let info: TensorInfo
  private let base: ScaledWeight

  init(_ base: ScaledWeight) throws(Failure) {
    let shape = base.info.shape
    guard shape.count > 1 else { throw Failure(.internal, "no matrix", tensor: base.info.name.string) }
    self.base = base
    info = try TensorInfo(
      name: base.info.name, type: base.info.type,
      shape: shape.dropLast(2) + [shape[shape.count - 1], shape[shape.count - 2]])
  }

  var parts: [Int] { base.parts }
  var typeName: String { base.typeName }
  var scheme: String { base.scheme }

  func decode(
    _ elements: Range<Int>, of checkpoint: any StoredTensors, as type: FloatType,
    into destination: inout MutableRawSpan
  ) throws(Failure) {
    if elements.isEmpty { return }
    guard let own = FloatType(info.type), type == own || type == .f32 else {
      throw Failure(.internal, "is not dequantized to \(type.torchName)", tensor: info.name.string)
    }
    if type == own { return try turn(elements, checkpoint, own.byteCount, &destination) }
    var narrow = ScratchBuffer(byteCount: elements.count * own.byteCount)
    var room = narrow.mutableBytes
    try turn(elements, checkpoint, own.byteCount, &room)
    do throws(Overflow) { try convert(narrow.bytes, from: own, to: type, into: &destination) } catch {
      throw Failure(.internal, "a value beyond float32", tensor: info.name.string)
    }
  }

  private func turn(
    _ elements: Range<Int>, _ checkpoint: any StoredTensors, _ width: Int, _ destination: inout MutableRawSpan
  ) throws(Failure) {
    let shape = base.info.shape
    let (height, size) = (shape[shape.count - 2], shape[shape.count - 2] * shape[shape.count - 1])
    var done = elements.lowerBound
    while done < elements.upperBound {
      // Rows of one matrix that the piece touches are columns of the stored one.
      let matrix = done / size
      let end = min(elements.upperBound, (matrix + 1) * size)
      let columns = done % size / height..<(end - 1 - matrix * size) / height + 1
      let bytes = height * columns.count * width
      var panel = ScratchBuffer(byteCount: bytes)
      var room = panel.mutableBytes
      try base.decode(
        rows: matrix * height..<(matrix + 1) * height, columns: columns, of: checkpoint, into: &room)
      var turned = ScratchBuffer(byteCount: bytes)
      var output = turned.mutableBytes
      transpose(panel.bytes, rows: height, columns: columns.count, elementBytes: width, into: &output)
      let first = (done - matrix * size - columns.lowerBound * height) * width
      let place = (done - elements.lowerBound) * width
      var piece = destination.part(place..<place + (end - done) * width)
      piece.copy(from: turned.bytes.extracting(first..<first + (end - done) * width))
      done = end
    }
  }
}
