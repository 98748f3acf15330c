import Foundation
import Testing

@testable import Quantization

/// What bitsandbytes itself computed; `make_golden.py` describes the file.
struct Golden: Sendable {
  struct FourBit: Sendable, CustomTestStringConvertible {
    var code: FourBitCode
    var type: FloatType
    var blockSize: Int
    var values, codes, dequantized: [UInt8]
    var absmax: [Float]
    var testDescription: String { "\(code.rawValue) \(type.rawValue) by \(blockSize)" }
  }

  struct Double: Sendable, CustomTestStringConvertible {
    var absmax: [Float]
    var offset: Float
    var codes: [UInt8]
    var nestedAbsmax, dequantized: [Float]
    var testDescription: String { "\(absmax.count) absmax" }
  }

  var map: [Float] = []
  var fourBit: [FourBit] = []
  var double: [Double] = []

  static let file: Golden = {
    let path =
      ProcessInfo.processInfo.environment["NIBBLE_GOLDEN"]
      ?? URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../fixtures/quantization/golden.bin")
      .path
    guard let data = FileManager.default.contents(atPath: path) else { fatalError("cannot read \(path)") }
    return Golden(Array(data))
  }()

  init(_ bytes: [UInt8]) {
    var position = 0
    func take(_ count: Int) -> [UInt8] {
      defer { position += count }
      return Array(bytes[position..<position + count])
    }
    func floats(_ count: Int) -> [Float] {
      take(count * 4).withUnsafeBytes { bytes in
        (0..<count).map {
          Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: $0 * 4, as: UInt32.self)))
        }
      }
    }
    while position < bytes.count {
      let end = bytes[position...].firstIndex(of: 10) ?? bytes.count
      let words = String(decoding: take(end - position), as: UTF8.self).split(separator: " ")
      position += 1
      switch (words[0], words.count) {
      case ("map", 1): map = floats(256)
      case ("fourbit", 5):
        guard let code = FourBitCode(rawValue: String(words[1])), let type = FloatType(rawValue: String(words[2])),
          let blockSize = Int(words[3]), let count = Int(words[4])
        else { fatalError("\(words)") }
        let values = take(count * type.byteCount)
        let codes = take((count + 1) / 2)
        let absmax = floats((count + blockSize - 1) / blockSize)
        fourBit.append(
          FourBit(
            code: code, type: type, blockSize: blockSize, values: values, codes: codes,
            dequantized: take(count * type.byteCount), absmax: absmax))
      case ("double", 2):
        guard let count = Int(words[1]) else { fatalError("\(words)") }
        double.append(
          Double(
            absmax: floats(count), offset: floats(1)[0], codes: take(count), nestedAbsmax: floats((count + 255) / 256),
            dequantized: floats(count)))
      default: fatalError("\(words)")
      }
    }
  }
}

@Suite struct GoldenTests {
  @Test func isComplete() {
    #expect(Golden.file.map.count == 256)
    #expect(Golden.file.fourBit.count == 24)
    #expect(Golden.file.double.count == 20)
  }

  @Test(arguments: Golden.file.fourBit)
  func fourBit(_ golden: Golden.FourBit) throws {
    let format = try #require(FourBitFormat(code: golden.code, blockSize: golden.blockSize))
    let values = Values(bytes: golden.values, as: golden.type)
    let found = try Quantized(values, format)
    let expected = Quantized(codes: golden.codes, absmax: golden.absmax)
    let difference = found.difference(from: expected, blockSize: golden.blockSize)
    #expect(difference == nil)
    var output = [UInt8](repeating: 0, count: golden.dequantized.count)
    golden.codes.withUnsafeBytes { codes in
      golden.absmax.withUnsafeBufferPointer { absmax in
        output.withUnsafeMutableBytes { output in
          format.dequantize(codes: codes, absmax: absmax, elements: 0..<values.count, into: output, as: golden.type)
        }
      }
    }
    #expect(output == golden.dequantized)
  }

  @Test func map() {
    #expect(DoubleQuantization.map.map(\.bitPattern) == Golden.file.map.map(\.bitPattern))
  }

  @Test(arguments: Golden.file.double)
  func double(_ golden: Golden.Double) throws {
    let blocks = DoubleQuantization.blockCount(golden.absmax.count)
    var codes = [UInt8](repeating: 0, count: golden.absmax.count)
    var nested = [Float](repeating: 0, count: blocks)
    var absmax = [Float](repeating: 0, count: golden.absmax.count)
    golden.absmax.withUnsafeBufferPointer { input in
      let offset = DoubleQuantization.offset(input)
      #expect(abs(offset - golden.offset) <= 4 * golden.offset.ulp, "\(offset), torch has \(golden.offset)")
      codes.withUnsafeMutableBufferPointer { codes in
        nested.withUnsafeMutableBufferPointer { nested in
          DoubleQuantization.quantize(input, offset: golden.offset, codes: codes, nestedAbsmax: nested)
        }
      }
    }
    #expect(codes == golden.codes)
    #expect(nested.map(\.bitPattern) == golden.nestedAbsmax.map(\.bitPattern))
    golden.codes.withUnsafeBufferPointer { codes in
      golden.nestedAbsmax.withUnsafeBufferPointer { nested in
        absmax.withUnsafeMutableBufferPointer { absmax in
          DoubleQuantization.dequantize(
            codes: codes, nestedAbsmax: nested, offset: golden.offset, blocks: 0..<absmax.count, into: absmax)
        }
      }
    }
    #expect(absmax.map(\.bitPattern) == golden.dequantized.map(\.bitPattern))
  }
}
