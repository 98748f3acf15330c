extension Reference {
  /// See the function `convert`.
  package static func convert(
    _ values: UnsafeRawBufferPointer, from source: FloatType, to target: FloatType,
    into output: UnsafeMutableRawBufferPointer
  ) throws(Overflow) {
    if source == target { return unsafe output.copyMemory(from: values) }
    for index in 0..<values.count / source.byteCount {
      let value = unsafe load(values, index, as: source)
      let stored = unsafe store(value, index, of: output, as: target)
      if value.isFinite && !stored.isFinite { throw Overflow(index: index, value: value) }
    }
  }

  /// See the function `narrow`.
  package static func narrow(
    _ values: UnsafeRawBufferPointer, to target: FloatType, into output: UnsafeMutableRawBufferPointer
  ) throws(Overflow) {
    for index in 0..<values.count / 8 {
      let value = unsafe load(values, index)
      let stored = unsafe store(value, index, of: output, as: target)
      if value.isFinite && !stored.isFinite { throw Overflow(index: index, value: value) }
    }
  }

  /// See `ValueStatistics.add`.
  package static func statistics(_ values: UnsafeRawBufferPointer, as type: FloatType) -> ValueStatistics {
    var result = ValueStatistics()
    var sums = [Double](repeating: 0, count: ValueStatistics.lanes)
    var squares = sums
    result.count = values.count / type.byteCount
    for index in 0..<result.count {
      let value = unsafe load(values, index, as: type)
      if value.isNaN {
        result.nans += 1
      } else if value.isInfinite {
        result.infinities += 1
      } else {
        if value == 0 { result.zeros += 1 }
        // Adding zero turns -0 into 0, so that the order of the two cannot show.
        result.minimum = min(result.minimum, value + 0)
        result.maximum = max(result.maximum, value + 0)
        sums[index % ValueStatistics.lanes] += value
        squares[index % ValueStatistics.lanes] += value * value
      }
    }
    result.sum = total(sums)
    result.sumOfSquares = total(squares)
    return result
  }

  /// See the function `addDelta`.
  package static func addDelta(
    _ values: UnsafeRawBufferPointer, as type: FloatType, delta: [Float], roundedTo deltaType: FloatType,
    into output: UnsafeMutableRawBufferPointer, as outputType: FloatType
  ) throws(NonFinite) -> ChangeSums {
    var squares = [Double](repeating: 0, count: ValueStatistics.lanes)
    var changes = squares
    for index in 0..<values.count / type.byteCount {
      let value = unsafe load(values, index, as: type)
      var room: UInt32 = 0
      let rounded = unsafe withUnsafeMutableBytes(of: &room) { room in
        unsafe store(Double(delta[index]), 0, of: room, as: deltaType)
      }
      squares[index % ValueStatistics.lanes] += value * value
      changes[index % ValueStatistics.lanes] += rounded * rounded
      let sum = Float(value) + Float(rounded)
      let stored = unsafe store(Double(sum), index, of: output, as: outputType)
      if !stored.isFinite { throw NonFinite(index: index, value: sum) }
    }
    return ChangeSums(values: total(squares), changes: total(changes))
  }

  static func total(_ s: [Double]) -> Double {
    ValueStatistics.total((s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]))
  }

  /// See the function `transpose`.
  package static func transpose(
    _ matrix: UnsafeRawBufferPointer, rows: Int, columns: Int, elementBytes: Int,
    into output: UnsafeMutableRawBufferPointer
  ) {
    for row in 0..<rows {
      for column in 0..<columns {
        for byte in 0..<elementBytes {
          unsafe output[(column * rows + row) * elementBytes + byte] =
            unsafe matrix[(row * columns + column) * elementBytes + byte]
        }
      }
    }
  }
}
