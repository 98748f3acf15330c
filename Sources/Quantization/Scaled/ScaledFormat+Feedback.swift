import Kernels

extension ScaledFormat {
  /// What values are divided by under scales as they are stored.
  ///
  /// - Parameter type: of the values.
  package func divisors(_ scales: [UInt8], as type: FloatType, globalScale: Float) -> [Float] {
    let width = scaleByteCount(as: type)
    var divisors: [Float] = []
    for index in 0..<scales.count / width {
      switch kind {
      case .fp8, .int4:
        divisors.append(unsafe scales.withUnsafeBytes { unsafe Float(Reference.load($0, index, as: type)) })
      case .mxfp4, .nearestMXFP4:
        let exponent = Int(scales[index]) - 127
        divisors.append(Float(sign: .plus, exponent: exponent, significand: 1))
      case .nvfp4:
        divisors.append(Reference.value(of: Int(scales[index]), .e4m3) / globalScale)
      }
    }
    return divisors
  }

  /// Quantizes columns one after the other, what each loses made good in those behind it.
  ///
  /// - Parameters:
  ///   - matrix: column by column, each of `rows` values, a multiple of 16; from `first` on `count` are quantized.
  ///   - factor: the upper factor of the inverse of the inputs' correlations, row by row, as many as `matrix` has columns.
  ///   - divisors: one for each row, not 0.
  ///   - codes: of the columns that are quantized, one byte each.
  ///   - errors: theirs, over the factor's diagonal.
  package func feedback(
    _ matrix: inout [Float], rows: Int, first: Int, count: Int, factor: [Float], divisors: [Float],
    codes: inout [UInt8], errors: inout [Float]
  ) {
    precondition(isSearchable && rows > 0 && rows % 16 == 0, "no format for this, or part of a vector")
    let columns = matrix.count / rows
    precondition(factor.count == columns * columns && first + count <= columns, "sizes differ")
    precondition(divisors.count >= rows && codes.count >= rows * count && errors.count >= rows * count, "no room")
    unsafe matrix.withUnsafeMutableBufferPointer { matrix in
      unsafe factor.withUnsafeBufferPointer { factor in
        guard let matrix = matrix.baseAddress, let factor = factor.baseAddress else { return }
        unsafe nibble_feedback_scaled(
          matrix + first * rows, rows, count, factor + first * columns + first, columns, kind.kernelValue, divisors,
          &codes, &errors)
      }
    }
  }
}

extension Reference {
  /// See `ScaledFormat.feedback`.
  package static func feedback(
    _ matrix: inout [Float], rows: Int, first: Int, count: Int, factor: [Float], divisors: [Float],
    format: ScaledFormat, codes: inout [UInt8], errors: inout [Float]
  ) {
    let columns = matrix.count / rows
    for column in 0..<count {
      let line = (first + column) * columns + first
      for row in 0..<rows {
        let value = matrix[(first + column) * rows + row]
        let quotient = value / divisors[row]
        let level: Float
        if format.kind == .int4 {
          level = min(max(quotient.rounded(.toNearestOrEven), -8), 7)
          codes[column * rows + row] = UInt8(level + 8)
        } else {
          let code = nearestE2M1(quotient)
          level = Reference.value(of: Int(code), .e2m1)
          codes[column * rows + row] = code
        }
        let error = (value - level * divisors[row]) / factor[line + column]
        errors[column * rows + row] = error
        for behind in column + 1..<max(count, column + 1) {
          matrix[(first + behind) * rows + row] -= factor[line + behind] * error
        }
      }
    }
  }
}
