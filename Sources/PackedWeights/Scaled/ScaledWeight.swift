import Bytes
import Quantization
import Tensors

/// A weight of codes in rows, each block of which has a scale, and maybe a zero point.
struct ScaledWeight: PackedWeight {
  /// How the codes of a matrix lie.
  enum Arrangement: Sendable {
    /// Row after row.
    case rows
    /// In words of 32 bits of which each holds codes of one row, [words of a row, rows].
    case turnedWords
    /// In words of 32 bits of which each holds codes of 4 bits of 8 rows, in AWQ's order: [columns, rows / 8].
    case interleaved
    /// Row after row of words of 32 bits, in which no code straddles two.
    case paddedWords(bits: Int)
  }

  let info: TensorInfo
  let typeName: String
  let parts: [Int]
  /// Type of the codes, and bytes of a row of them.
  let codes: CodeType
  let rowBytes: Int
  var arrangement = Arrangement.rows
  let scales: ScaleGrid
  var zeros: ZeroPoints?
  /// Which group each column is in, where it is not told by its place.
  var groups: ColumnGroups?
  /// What products are multiplied with once they are rounded to 32 bits.
  var share: Float?

  var scheme: String { typeName.lowercased() }

  var height: Int { info.shape.count > 1 ? info.shape[info.shape.count - 2] : 1 }
  var width: Int { info.shape.last ?? 1 }

  func decode(
    _ elements: Range<Int>, of checkpoint: any StoredTensors, as type: FloatType,
    into destination: inout MutableRawSpan
  ) throws(Failure) {
    guard let own = FloatType(info.type), type == own || type == .f32 else {
      throw Failure(.internal, "is not dequantized to \(type.torchName)", tensor: info.name.string)
    }
    if elements.isEmpty { return }
    if let share { return try decode(elements, by: share, checkpoint, own, type, &destination) }
    if type == own {
      try decodeRows(elements, checkpoint, own, &destination)
      return try checkRange(destination.bytes, of: elements, own, checkpoint)
    }
    var narrow = ScratchBuffer(byteCount: elements.count * own.byteCount)
    var room = narrow.mutableBytes
    try decodeRows(elements, checkpoint, own, &room)
    try checkRange(narrow.bytes, of: elements, own, checkpoint)
    do throws(Overflow) { try convert(narrow.bytes, from: own, to: type, into: &destination) } catch {
      throw Failure(.internal, "a value beyond float32", tensor: info.name.string)
    }
  }

  private func decode(
    _ elements: Range<Int>, by share: Float, _ checkpoint: any StoredTensors, _ own: FloatType, _ type: FloatType,
    _ destination: inout MutableRawSpan
  ) throws(Failure) {
    var products = ScratchBuffer(byteCount: 4 * elements.count)
    var room = products.mutableBytes
    try decodeRows(elements, checkpoint, .f32, &room)
    var numbers = products.mutableFloats
    for at in 0..<elements.count { numbers[at] *= share }
    var narrow = ScratchBuffer(byteCount: elements.count * own.byteCount)
    do throws(Overflow) {
      var values = narrow.mutableBytes
      try convert(products.bytes, from: .f32, to: own, into: &values)
      try convert(narrow.bytes, from: own, to: type, into: &destination)
    } catch {
      throw Failure(
        .malformed,
        "element \(elements.lowerBound + error.index) is \(error.value), beyond the range of \(own.torchName)",
        tensor: info.name.string)
    }
  }

  /// Codes and scales that are finite may have a product that float16 has no number for. In the other types that takes
  /// scales beyond 2^118, which no weight has.
  ///
  /// - Throws: `malformed` for a product beyond the range; what is infinite or NaN by its codes stays.
  private func checkRange(
    _ values: RawSpan, of elements: Range<Int>, _ type: FloatType, _ checkpoint: any StoredTensors
  ) throws(Failure) {
    guard type == .f16, !ScaledFormat.largestMagnitude(values, as: type).isFinite else { return }
    var exact = ScratchBuffer(byteCount: 4 * elements.count)
    var room = exact.mutableBytes
    try decodeRows(elements, checkpoint, .f32, &room)
    let products = exact.floats
    for position in products.indices where products[position].isFinite && products[position].magnitude >= 65520 {
      throw Failure(
        .malformed,
        "element \(elements.lowerBound + position) is \(products[position]), beyond the range of \(type.torchName)",
        tensor: info.name.string)
    }
  }

  private func decodeRows(
    _ elements: Range<Int>, _ checkpoint: any StoredTensors, _ type: FloatType,
    _ destination: inout MutableRawSpan
  ) throws(Failure) {
    let rows = elements.lowerBound / width..<(elements.upperBound - 1) / width + 1
    let grid =
      scales.row(of: rows.lowerBound, height: height)..<scales.row(of: rows.upperBound - 1, height: height) + 1
    let factors = try scales.read(grid, of: checkpoint)
    let origins = try zeros?.read(grid, scales, of: checkpoint) ?? ScratchBuffer(byteCount: 0)
    var places = try groups?.read(width, of: checkpoint)
    // Most say what their place tells.
    if let stated = places, stated.indices.allSatisfy({ stated[$0] == $0 / scales.blockColumns }) { places = nil }
    // A row begins with the code that a byte begins with.
    let first = (elements.lowerBound - rows.lowerBound * width) / CodeType.unit * CodeType.unit
    let bytes = rows.lowerBound * rowBytes + first / CodeType.unit * codes.bits
    let words = try readCodes(rows, from: bytes, checkpoint)
    var done = 0
    for row in rows {
      let start = max(elements.lowerBound - row * width, 0)
      let end = min(elements.upperBound - row * width, width)
      let isFirst = row == rows.lowerBound
      let part = isFirst ? 0..<(row + 1) * rowBytes - bytes : row * rowBytes - bytes..<(row + 1) * rowBytes - bytes
      let place = (scales.row(of: row, height: height) - grid.lowerBound) * scales.columns
      let line = Line(
        codes: codes, first: isFirst ? first : 0, row: words.bytes.extracting(part),
        scales: factors.floats.extracting(place..<place + scales.columns),
        zeros: zeros == nil ? origins.floats : origins.floats.extracting(place..<place + scales.columns),
        blockColumns: scales.blockColumns)
      var piece = destination.part(done..<done + (end - start) * type.byteCount)
      if let places {
        line.decode(start..<end, by: places, as: type, into: &piece)
      } else {
        line.decode(start..<end, as: type, into: &piece)
      }
      done += (end - start) * type.byteCount
    }
  }

  /// Bytes of codes that are read at once where a few columns are wanted of each row.
  private static let panelBytes = 1 << 19

  /// Computes some columns of rows that lie one after the other and have neither zero points nor an order.
  ///
  /// - Parameters:
  ///   - rows: counted over all matrices.
  ///   - destination: [rows, columns] of the weight's own type.
  func decode(
    rows: Range<Int>, columns: Range<Int>, of checkpoint: any StoredTensors, into destination: inout MutableRawSpan
  ) throws(Failure) {
    guard let type = FloatType(info.type), zeros == nil, groups == nil, share == nil, case .rows = arrangement else {
      throw Failure(.internal, "is not decoded by columns", tensor: info.name.string)
    }
    let step = max(1, Self.panelBytes / max(1, rowBytes))
    let size = columns.count * type.byteCount
    for first in stride(from: rows.lowerBound, to: rows.upperBound, by: step) {
      let some = first..<min(first + step, rows.upperBound)
      let grid = scales.row(of: first, height: height)..<scales.row(of: some.upperBound - 1, height: height) + 1
      let factors = try scales.read(grid, of: checkpoint)
      let stored = try ScratchBuffer(checkpoint, payload, at: first * rowBytes, count: some.count * rowBytes)
      for row in some {
        let place = (scales.row(of: row, height: height) - grid.lowerBound) * scales.columns
        let line = Line(
          codes: codes, first: 0, row: stored.bytes.extracting((row - first) * rowBytes..<(row - first + 1) * rowBytes),
          scales: factors.floats.extracting(place..<place + scales.columns), zeros: factors.floats.extracting(0..<0),
          blockColumns: scales.blockColumns)
        let at = (row - rows.lowerBound) * size
        var piece = destination.part(at..<at + size)
        line.decode(columns, as: type, into: &piece)
        let start = row * width + columns.lowerBound
        try checkRange(piece.bytes, of: start..<start + columns.count, type, checkpoint)
      }
    }
  }
}

/// The codes of one row, and their scales.
private struct Line: ~Escapable {
  let codes: CodeType
  /// The column that the codes begin with.
  let first: Int
  let row: RawSpan
  let scales: Span<Float>
  let zeros: Span<Float>
  let blockColumns: Int

  @_lifetime(copy row, copy scales, copy zeros)
  init(codes: CodeType, first: Int, row: RawSpan, scales: Span<Float>, zeros: Span<Float>, blockColumns: Int) {
    self.codes = codes
    self.first = first
    self.row = row
    self.scales = scales
    self.zeros = zeros
    self.blockColumns = blockColumns
  }

  /// Computes the values of some columns.
  func decode(_ columns: Range<Int>, as type: FloatType, into values: inout MutableRawSpan) {
    // Codes begin a byte at a multiple of their unit.
    let start = columns.lowerBound / CodeType.unit * CodeType.unit
    if start == columns.lowerBound || codes.bits == 8 {
      return compute(columns, scales, zeros, blockColumns, type, &values)
    }
    var whole = ScratchBuffer(byteCount: (columns.upperBound - start) * type.byteCount)
    var room = whole.mutableBytes
    compute(start..<columns.upperBound, scales, zeros, blockColumns, type, &room)
    let first = (columns.lowerBound - start) * type.byteCount
    values.copy(from: whole.bytes.extracting(first..<first + columns.count * type.byteCount))
  }

  private func compute(
    _ columns: Range<Int>, _ scales: Span<Float>, _ zeros: Span<Float>, _ size: Int, _ type: FloatType,
    _ values: inout MutableRawSpan
  ) {
    let group = columns.lowerBound / size
    let skipped = columns.lowerBound - first
    codes.dequantize(
      row.extracting(skipped / CodeType.unit * codes.bits + skipped % CodeType.unit..<row.byteCount),
      scales: scales.extracting(group..<scales.count),
      zeros: zeros.isEmpty ? zeros : zeros.extracting(group..<scales.count), groupSize: size,
      lead: columns.lowerBound % size, into: &values, as: type)
  }

  /// The same where each column says which group it is in.
  func decode(_ columns: Range<Int>, by groups: [Int], as type: FloatType, into values: inout MutableRawSpan) {
    var each = ScratchBuffer(byteCount: 4 * groups.count)
    var factors = each.mutableFloats
    for column in groups.indices { factors[column] = scales[groups[column]] }
    var origins = ScratchBuffer(byteCount: zeros.isEmpty ? 0 : 4 * groups.count)
    if !zeros.isEmpty {
      var numbers = origins.mutableFloats
      for column in groups.indices { numbers[column] = zeros[groups[column]] }
    }
    Line(codes: codes, first: first, row: row, scales: each.floats, zeros: origins.floats, blockColumns: 1)
      .decode(columns, as: type, into: &values)
  }
}
