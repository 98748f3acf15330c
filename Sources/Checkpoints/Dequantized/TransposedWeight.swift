import Bytes
import Quantization
import Tensors

/// A packed weight whose matrices lie the other way round than the model has them.
struct TransposedWeight: PackedWeight {
  let info: TensorInfo
  private let base: any PackedWeight

  init(_ base: any PackedWeight) throws(Failure) {
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
    _ elements: Range<Int>, of checkpoint: any StoredCheckpoint, as type: FloatType,
    into destination: inout MutableRawSpan
  ) throws(Failure) {
    if elements.isEmpty { return }
    let shape = base.info.shape
    let (stored, columns) = (shape[shape.count - 2], shape[shape.count - 1])
    let size = stored * columns
    var done = elements.lowerBound
    while done < elements.upperBound {
      // Rows of one matrix that the piece touches are columns of the stored one.
      let matrix = done / size
      let end = min(elements.upperBound, (matrix + 1) * size)
      let rows = done % size / stored..<(end - 1 - matrix * size) / stored + 1
      let part = rows.count * type.byteCount
      var panel = ScratchBuffer(byteCount: stored * part)
      var room = panel.mutableBytes
      for row in 0..<stored {
        let first = matrix * size + row * columns + rows.lowerBound
        var piece = room.part(row * part..<(row + 1) * part)
        try base.decode(first..<first + rows.count, of: checkpoint, as: type, into: &piece)
      }
      var turned = ScratchBuffer(byteCount: stored * part)
      var output = turned.mutableBytes
      transpose(panel.bytes, rows: stored, columns: rows.count, elementBytes: type.byteCount, into: &output)
      let first = (done - matrix * size - rows.lowerBound * stored) * type.byteCount
      let bytes = (end - done) * type.byteCount
      let place = (done - elements.lowerBound) * type.byteCount
      var piece = destination.part(place..<place + bytes)
      piece.copy(from: turned.bytes.extracting(first..<first + bytes))
      done = end
    }
  }
}
