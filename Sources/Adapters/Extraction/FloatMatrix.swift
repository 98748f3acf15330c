package import Bytes
package import Quantization
import Tensors

/// A row-major matrix of 32-bit values in memory of its own.
///
/// Shared by the workers of one computation, which write disjoint parts of it.
@safe package final class FloatMatrix: @unchecked Sendable {
  package let rows: Int
  package let columns: Int
  private let memory: UnsafeMutableBufferPointer<Float>

  /// All zeros.
  ///
  /// - Throws: `unsupported` for a side that BLAS cannot count, or more values than memory could hold.
  package init(rows: Int, columns: Int) throws(Failure) {
    let (count, overflowed) = rows.multipliedReportingOverflow(by: columns)
    guard (0...Int(Int32.max)).contains(rows), (0...Int(Int32.max)).contains(columns), !overflowed, count < 1 << 40
    else {
      throw Failure(
        .unsupported, "has shape [\(rows), \(columns)]; matrices of up to 2^31 - 1 rows and columns can be decomposed")
    }
    self.rows = rows
    self.columns = columns
    unsafe memory = .allocate(capacity: count)
    unsafe memory.initialize(repeating: 0)
  }

  /// A copy of values that lie row by row.
  package convenience init(rows: Int, columns: Int, _ values: [Float]) throws(Failure) {
    try self.init(rows: rows, columns: columns)
    precondition(values.count == count, "not as many values as the matrix has")
    for (index, value) in values.enumerated() { unsafe memory[index] = value }
  }

  deinit { unsafe memory.deallocate() }

  package var count: Int { rows * columns }

  /// All values, for what BLAS and LAPACK do with them; nothing is done with a matrix that has none.
  func withValues(_ body: (UnsafeMutablePointer<Float>) -> Void) {
    if count == 0 { return }
    withExtendedLifetime(self) { if let start = unsafe memory.baseAddress { unsafe body(start) } }
  }

  /// The bytes of all values, for use when the workers are done.
  package var bytes: RawSpan {
    @_lifetime(borrow self)
    get { unsafe _overrideLifetime(RawSpan(_unsafeBytes: UnsafeRawBufferPointer(memory)), borrowing: self) }
  }

  /// The part of one worker, counted over the rows.
  @_lifetime(borrow self)
  package func part(_ range: Range<Int>) -> MutableSpan<Float> {
    let part = unsafe UnsafeMutableBufferPointer(rebasing: memory[range])
    return unsafe _overrideLifetime(MutableSpan(_unsafeElements: part), borrowing: self)
  }

  private var all: MutableRawSpan {
    @_lifetime(borrow self)
    get { unsafe _overrideLifetime(MutableRawSpan(_unsafeElements: memory), borrowing: self) }
  }

  package var array: [Float] { unsafe Array(memory) }

  package subscript(row: Int, column: Int) -> Float {
    get {
      precondition(row < rows && column < columns, "outside the matrix")
      return unsafe memory[row * columns + column]
    }
    set {
      precondition(row < rows && column < columns, "outside the matrix")
      unsafe memory[row * columns + column] = newValue
    }
  }

  package func transposed() throws(Failure) -> FloatMatrix {
    let result = try FloatMatrix(rows: columns, columns: rows)
    var output = result.all
    transpose(bytes, rows: rows, columns: columns, elementBytes: 4, into: &output)
    return result
  }

  /// Rounds every value to another type, to nearest even.
  ///
  /// - Throws: `malformed` for a value that the type can only hold as an infinity.
  package func round(to type: FloatType) throws(Failure) {
    if type == .f32 { return }
    var stored = ScratchBuffer(byteCount: count * type.byteCount)
    var room = stored.mutableBytes
    do throws(Overflow) {
      try convert(bytes, from: .f32, to: type, into: &room)
      var values = all
      try convert(stored.bytes, from: type, to: .f32, into: &values)
    } catch {
      throw Failure(.malformed, "needs a factor of \(error.value), beyond the range of \(type.torchName)")
    }
  }

  func copy() throws(Failure) -> FloatMatrix {
    let copy = try FloatMatrix(rows: rows, columns: columns)
    _ = unsafe copy.memory.update(fromContentsOf: memory)
    return copy
  }
}
