import Testing

@testable import Quantization

extension KernelTests {
  @Suite struct AddDelta {
    @Test(arguments: Target.all, FloatType.allCases)
    func agreesWithReference(target: Int, type: FloatType) throws {
      var random = Random(21)
      for count in [1, 7, 8, 9, 16, 1023, 1024, 1025, 3000] {
        let values = Values((0..<count).map { _ in random.normal() }, as: type)
        let delta = (0..<count).map { _ in Float(random.normal()) * 0.01 }
        for deltaType in FloatType.allCases {
          for output in FloatType.allCases {
            let found = try result(values, delta, deltaType, output) { values, delta, room in
              try Target.with(target) {
                try delta.withUnsafeBufferPointer {
                  try addDelta(values, as: type, delta: $0, roundedTo: deltaType, into: room, as: output)
                }
              }
            }
            let expected = try result(values, delta, deltaType, output) { values, delta, room in
              try Reference.addDelta(values, as: type, delta: delta, roundedTo: deltaType, into: room, as: output)
            }
            #expect(found.bytes == expected.bytes, "\(count) values, delta in \(deltaType), to \(output)")
            #expect(found.sums == expected.sums, "\(count) values")
          }
        }
      }
    }

    @Test(arguments: Target.all)
    func refusesWhatIsNotFinite(target: Int) {
      var delta = [Float](repeating: 0, count: 2000)
      delta[1500] = 70000
      delta[1700] = .nan
      let values = Values([Double](repeating: 1, count: 2000), as: .f16)
      func refused(_ output: FloatType) -> NonFinite? {
        do {
          _ = try result(values, delta, .f32, output) { values, delta, room in
            try Target.with(target) {
              try delta.withUnsafeBufferPointer {
                try addDelta(values, as: .f16, delta: $0, roundedTo: .f32, into: room, as: output)
              }
            }
          }
          return nil
        } catch { return error as? NonFinite }
      }
      #expect(refused(.f16) == NonFinite(index: 1500, value: 70001))
      #expect(refused(.bf16) == NonFinite(index: 1700, value: .nan))
      #expect(refused(.f32) == NonFinite(index: 1700, value: .nan))
    }

    @Test func byHand() throws {
      // 1 + 2^-9 is between the bf16 values 1 and 1 + 2^-7; rounded once it is 1.
      let values = Values([1, 2, -3, 0], as: .bf16)
      let (bytes, sums) = try result(values, [0.001953125, 2, 0, -4], .f32, .f32) { values, delta, room in
        try delta.withUnsafeBufferPointer {
          try addDelta(values, as: .bf16, delta: $0, roundedTo: .f32, into: room, as: .f32)
        }
      }
      let found = Values(bytes: bytes, as: .f32)
      #expect((0..<4).map { found[$0] } == [1.001953125, 4, -3, -4])
      #expect(sums == ChangeSums(values: 14, changes: 20 + 0.001953125 * 0.001953125))
    }

    private func result(
      _ values: Values, _ delta: [Float], _ deltaType: FloatType, _ output: FloatType,
      _ body: (UnsafeRawBufferPointer, [Float], UnsafeMutableRawBufferPointer) throws -> ChangeSums
    ) throws -> (bytes: [UInt8], sums: ChangeSums) {
      var room = [UInt8](repeating: 0xA5, count: values.count * output.byteCount + 64)
      let sums = try values.withBytes { values in try room.withUnsafeMutableBytes { try body(values, delta, $0) } }
      #expect(room.suffix(64).allSatisfy { $0 == 0xA5 }, "written beyond the end")
      room.removeLast(64)
      return (room, sums)
    }
  }
}
