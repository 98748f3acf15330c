import Testing

@testable import Quantization

struct ConversionCase: Sendable, CustomTestStringConvertible {
  var target: Int
  var source: FloatType
  var output: FloatType
  var testDescription: String { "\(source.rawValue) to \(output.rawValue) on \(KernelTarget.names[target])" }

  static let all = Target.all.flatMap { target in
    FloatType.allCases.flatMap { source in
      FloatType.allCases.map { ConversionCase(target: target, source: source, output: $0) }
    }
  }
}

/// The result, or what was thrown.
private func converted(_ values: Values, to type: FloatType) -> Result<[UInt8], Overflow> {
  var output = [UInt8](repeating: 0xA5, count: values.count * type.byteCount)
  return Result { () throws(Overflow) in
    var failure: Overflow?
    values.withBytes { bytes in
      output.withUnsafeMutableBytes { output in
        do throws(Overflow) { try convert(bytes, from: values.type, to: type, into: output) } catch { failure = error }
      }
    }
    if let failure { throw failure }
    return output
  }
}

private func referenced(_ values: Values, to type: FloatType) -> Result<[UInt8], Overflow> {
  var output = [UInt8](repeating: 0xA5, count: values.count * type.byteCount)
  return Result { () throws(Overflow) in
    var failure: Overflow?
    values.withBytes { bytes in
      output.withUnsafeMutableBytes { output in
        do throws(Overflow) {
          try Reference.convert(bytes, from: values.type, to: type, into: output)
        } catch { failure = error }
      }
    }
    if let failure { throw failure }
    return output
  }
}

private func bytes(_ patterns: [UInt64], as type: FloatType) -> [UInt8] {
  patterns.flatMap { pattern in (0..<type.byteCount).map { UInt8(truncatingIfNeeded: pattern >> (8 * $0)) } }
}

extension KernelTests {
  @Suite struct Conversion {
    /// Every 16-bit pattern; of f32 every upper half with lower halves on and around the ties.
    @Test(arguments: ConversionCase.all)
    func everyPattern(_ c: ConversionCase) throws {
      var patterns: [UInt64] = Array(0..<0x10000)
      if c.source == .f32 {
        var random = Random(7)
        let lows: [UInt64] = [0, 1, 0x0FFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0x3001, 0x7FFF, 0x8000, 0x8001, 0xFFFF]
        patterns = patterns.map { $0 << 16 | (lows.randomElement(using: &random) ?? 0) }
      }
      // Values that overflow end a conversion, so they are left to another test.
      let fitting = patterns.filter { pattern in
        let value = Reference.value(bits: pattern, as: c.source)
        return !value.isFinite || c.output == .f32 || c.source == c.output || value.magnitude < 65504
      }
      let values = Values(bytes: bytes(fitting, as: c.source), as: c.source)
      let found = Target.with(c.target) { converted(values, to: c.output) }
      let expected = referenced(values, to: c.output)
      #expect(found == expected)
    }

    @Test(arguments: Target.all)
    func overflow(target: Int) {
      let largest = Double(Float.greatestFiniteMagnitude)
      let rows: [(FloatType, FloatType, Double, Bool)] = [
        (.f32, .f16, 65519.996, false), (.f32, .f16, 65520, true), (.bf16, .f16, 65280, false),
        (.bf16, .f16, -65536, true), (.f32, .bf16, 3.3895e38, false), (.f32, .bf16, -largest, true),
        (.f32, .f16, .infinity, false), (.f32, .f16, .nan, false), (.f16, .bf16, 65504, false),
      ]
      for (source, output, value, overflows) in rows {
        for index in [0, 15, 16, 36] {
          var values = [Double](repeating: 1, count: 37)
          values[index] = value
          let input = Values(values, as: source)
          let found = Target.with(target) { converted(input, to: output) }
          #expect((try? found.get()) == nil ? overflows : !overflows, "\(value) \(source) to \(output)")
          if overflows { #expect(found == .failure(Overflow(index: index, value: input[index]))) }
          #expect(found == referenced(input, to: output))
        }
      }
    }

    @Test(arguments: Target.all, FloatType.allCases)
    func narrowing(target: Int, output: FloatType) throws {
      var random = Random(8)
      var values: [Double] = [0, -0.0, .nan, -.nan, .infinity, -.infinity, 1, -1]
      for pattern in UInt64(0)..<0x7C00 {
        // On, just above and just below the middle between two values of a 16-bit type.
        let middle = (Reference.value(bits: pattern, as: .f16) + Reference.value(bits: pattern + 1, as: .f16)) / 2
        guard middle < 60000 else { continue }
        values += [middle, middle.nextUp, -middle.nextDown]
      }
      for _ in 0..<5000 { values.append(random.anyFinite(output).nextUp) }
      values = values.filter { !$0.isFinite || output == .f32 || $0.magnitude < 60000 }
      values = values.filter { !$0.isFinite || $0.magnitude < 3e38 }
      let result = Target.with(target) { narrowed(values, to: output) }
      #expect(result == referenceNarrowed(values, to: output))
      #expect((try? result.get()) != nil)
      for (index, value) in [(3, 1e39), (600, -1e300), (511, 3.5e38)] {
        var bad = [Double](repeating: 2, count: 700)
        bad[index] = value
        #expect(Target.with(target) { narrowed(bad, to: output) } == .failure(Overflow(index: index, value: value)))
      }
    }

    private func narrowed(_ values: [Double], to type: FloatType) -> Result<[UInt8], Overflow> {
      var output = [UInt8](repeating: 0xA5, count: values.count * type.byteCount)
      var failure: Overflow?
      values.withUnsafeBytes { bytes in
        output.withUnsafeMutableBytes { output in
          do throws(Overflow) { try narrow(bytes, to: type, into: output) } catch { failure = error }
        }
      }
      return failure.map(Result.failure) ?? .success(output)
    }

    private func referenceNarrowed(_ values: [Double], to type: FloatType) -> Result<[UInt8], Overflow> {
      var output = [UInt8](repeating: 0xA5, count: values.count * type.byteCount)
      var failure: Overflow?
      values.withUnsafeBytes { bytes in
        output.withUnsafeMutableBytes { output in
          do throws(Overflow) { try Reference.narrow(bytes, to: type, into: output) } catch { failure = error }
        }
      }
      return failure.map(Result.failure) ?? .success(output)
    }
  }
}

/// The reference itself, against the compiler's conversions.
@Suite struct ReferenceTests {
  @Test func singlePrecision() {
    var random = Random(9)
    for _ in 0..<20000 {
      let pattern = UInt32(truncatingIfNeeded: random.next())
      let value = Float(bitPattern: pattern)
      if !value.isNaN {
        #expect(Reference.value(bits: UInt64(pattern), as: .f32) == Double(value))
        #expect(Values([Double(value)], as: .f32).bytes == bytes([UInt64(pattern)], as: .f32))
      }
      let double = Double(bitPattern: random.next() >> 2 | 0x3000 << 48)
      #expect(Values([double], as: .f32).bytes == bytes([UInt64(Float(double).bitPattern)], as: .f32))
    }
  }

  #if !(os(macOS) && arch(x86_64))
    @Test func halfPrecision() {
      for pattern in UInt16(0)...UInt16.max {
        let half = Float16(bitPattern: pattern)
        if !half.isNaN { #expect(Reference.value(bits: UInt64(pattern), as: .f16) == Double(half)) }
      }
      var random = Random(10)
      for _ in 0..<20000 {
        let value =
          random.normal() * Double(sign: .plus, exponent: Int.random(in: -28...17, using: &random), significand: 1)
        #expect(Values([value], as: .f16).bytes == bytes([UInt64(Float16(value).bitPattern)], as: .f16))
      }
    }
  #endif

  @Test func brainFloat() {
    #expect(Values([1.0, -2.5, 1.00390625, 1.01171875], as: .bf16).bytes.hex == "803f" + "20c0" + "803f" + "823f")
    #expect(Reference.value(bits: 0x0001, as: .bf16) == 0x1p-133)
    #expect(Reference.value(bits: 0xFF80, as: .bf16) == -.infinity)
    #expect(Reference.value(bits: 0x7F81, as: .bf16).isNaN)
  }
}
