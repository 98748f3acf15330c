import Foundation
import Testing

@testable import Quantization

/// Speeds of the kernels, for whoever changes them:
/// `NIBBLE_TIMING=1 make test-optimized SWIFT_TEST_FLAGS="--filter TimingTests"`
@Suite(
  .serialized,
  .enabled(
    if: ProcessInfo.processInfo.environment["NIBBLE_TIMING"] != nil, "measurements are made when NIBBLE_TIMING is set"))
struct TimingTests {
  static let count = 1 << 22

  /// Prints 10^9 values per second and core: the best of several runs, in CPU time of this thread.
  func time(_ name: String, _ count: Int = count, _ body: () throws -> Void) rethrows {
    var best = Double.infinity
    for _ in 0..<12 {
      let start = now()
      try body()
      best = min(best, now() - start)
    }
    print("\(simdTarget) \(name): \(String(format: "%.2f", Double(count) / best / 1e9)) G values/s")
  }

  /// Seconds.
  private func now() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
  }

  @Test func kernels() throws {
    var random = Random(14)
    let period = (0..<4096).map { _ in random.normal() * 0.02 }
    var codes = [UInt8](repeating: 0, count: Self.count / 2)
    var absmax = [Float](repeating: 0, count: Self.count / 64)
    var output = [UInt8](repeating: 0, count: Self.count * 4)
    for code in FourBitCode.allCases {
      for type in FloatType.allCases {
        let format = try #require(FourBitFormat(code: code, blockSize: 64))
        let once = Values(period, as: type).bytes
        let bytes = (0..<Self.count / 4096).flatMap { _ in once }
        try bytes.withUnsafeBytes { bytes in
          try codes.withUnsafeMutableBytes { codes in
            try absmax.withUnsafeMutableBufferPointer { absmax in
              try output.withUnsafeMutableBytes { output in
                try time("quantize \(type.rawValue) to \(code.rawValue)") {
                  try format.quantize(bytes, as: type, codes: codes, absmax: absmax)
                }
                time("dequantize \(code.rawValue) to \(type.rawValue)") {
                  format.dequantize(
                    codes: UnsafeRawBufferPointer(codes), absmax: UnsafeBufferPointer(absmax), elements: 0..<Self.count,
                    into: output, as: type)
                }
                time("statistics of \(type.rawValue)") {
                  var statistics = ValueStatistics()
                  statistics.add(bytes, as: type)
                }
                let real: RealType = type == .bf16 ? .bf16 : type == .f16 ? .f16 : .f32
                time("difference of \(type.rawValue)") {
                  var difference = ValueDifference()
                  difference.add(bytes, as: real, bytes, as: real)
                }
              }
            }
          }
        }
      }
    }
    var nestedCodes = [UInt8](repeating: 0, count: absmax.count)
    var nested = [Float](repeating: 0, count: absmax.count)
    absmax.withUnsafeBufferPointer { absmax in
      nestedCodes.withUnsafeMutableBufferPointer { codes in
        nested.withUnsafeMutableBufferPointer { nested in
          time("double quantization of absmax", absmax.count) {
            let offset = DoubleQuantization.offset(absmax)
            DoubleQuantization.quantize(absmax, offset: offset, codes: codes, nestedAbsmax: nested)
          }
        }
      }
    }
  }
}
