import Bytes
import Quantization
import TestSupport
import Testing

@testable import PackedWeights

/// The JSON beside each 4-bit weight.
@Suite struct QuantStateTests {
  struct Example: Sendable, CustomTestStringConvertible {
    var testDescription: String
    /// Written by `QuantState.as_dict(packed=True)` of bitsandbytes 0.50.2.
    var text: String
    var state: QuantState
  }

  static let examples = [
    Example(
      testDescription: "plain nf4",
      text: #"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [7, 9]}"#,
      state: QuantState(code: .nf4, blockSize: 64, type: .bf16, shape: [7, 9])),
    Example(
      testDescription: "plain fp4",
      text: #"{"quant_type": "fp4", "blocksize": 64, "dtype": "float16", "shape": [7, 9]}"#,
      state: QuantState(code: .fp4, blockSize: 64, type: .f16, shape: [7, 9])),
    Example(
      testDescription: "plain of float32",
      text: #"{"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [7, 64]}"#,
      state: QuantState(code: .nf4, blockSize: 64, type: .f32, shape: [7, 64])),
    Example(
      testDescription: "nested nf4",
      text:
        #"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [7, 9], "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 2.359375}"#,
      state: QuantState(code: .nf4, blockSize: 64, type: .bf16, shape: [7, 9], nestedOffset: 2.359375)),
    Example(
      testDescription: "nested with a small offset",
      text:
        #"{"quant_type": "fp4", "blocksize": 64, "dtype": "float16", "shape": [7, 9], "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 2.384185791015625e-06}"#,
      state: QuantState(code: .fp4, blockSize: 64, type: .f16, shape: [7, 9], nestedOffset: 2.384185791015625e-06)),
    Example(
      testDescription: "nested with a long offset",
      text:
        #"{"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [7, 64], "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 2.7074131965637207}"#,
      state: QuantState(code: .nf4, blockSize: 64, type: .f32, shape: [7, 64], nestedOffset: 2.7074131965637207)),
  ]

  @Test(arguments: examples)
  func asBitsandbytesWritesIt(_ example: Example) throws {
    #expect(try QuantState(parsing: Array(example.text.utf8)) == example.state)
    #expect(example.state.text == example.text)
    // Our own padding, and any order of keys.
    #expect(try QuantState(parsing: Array((example.text + "   \n").utf8)) == example.state)
  }

  /// The place that is kept is large enough for every offset, and does not depend on it.
  @Test(arguments: [
    0, -0.0, 1, -1, 0.1, .leastNonzeroMagnitude, -.leastNonzeroMagnitude, .leastNormalMagnitude,
    .leastNormalMagnitude.nextDown,
    -.leastNormalMagnitude.nextDown, .greatestFiniteMagnitude, -.greatestFiniteMagnitude, -2.384185791015625e-06,
    Float(1) / 3, 123456.789,
  ])
  func reservedLength(_ offset: Float) throws {
    var state = QuantState(code: .nf4, blockSize: 64, type: .bf16, shape: [4096, 11008], nestedOffset: offset)
    let reserved = state.reservedByteCount
    #expect(state.text.utf8.count <= reserved)
    let parsed = try QuantState(parsing: Array(state.text.utf8))
    #expect(parsed.nestedOffset?.bitPattern == offset.bitPattern)
    state.nestedOffset = 0
    #expect(state.reservedByteCount == reserved)
  }

  @Test(arguments: [
    ("", "JSON text ends"), ("[]", "is not a JSON object"), ("{}", "no valid 'quant_type'"),
    (#"{"quant_type": "nf5", "blocksize": 64, "dtype": "bfloat16", "shape": [1]}"#, "no valid 'quant_type'"),
    (#"{"quant_type": "nf4", "blocksize": 64.0, "dtype": "bfloat16", "shape": [1]}"#, "no valid 'blocksize'"),
    (#"{"quant_type": "nf4", "blocksize": 16, "dtype": "bfloat16", "shape": [1]}"#, "has blocksize 16"),
    (#"{"quant_type": "nf4", "blocksize": -64, "dtype": "bfloat16", "shape": [1]}"#, "has blocksize -64"),
    (#"{"quant_type": "nf4", "blocksize": 64, "dtype": "torch.bfloat16", "shape": [1]}"#, "no valid 'dtype'"),
    (#"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16"}"#, "no valid 'shape'"),
    (#"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [-1]}"#, "no valid 'shape'"),
    (#"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [1], "x": 1}"#, "has the key 'x'"),
    (
      #"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [1], "nested_offset": 1}"#,
      "no valid 'nested_blocksize'"
    ),
    (
      #"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [1], "nested_blocksize": 256}"#,
      "nested_dtype is not float32"
    ),
    (
      #"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [1], "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": "1"}"#,
      "no valid 'nested_offset'"
    ),
  ])
  func refused(_ text: String, _ message: String) throws {
    let failure = try #require(throws: Failure.self) { _ = try QuantState(parsing: Array(text.utf8)) }
    #expect(failure.code == .malformed && failure.message.contains(message), "\(failure)")
  }
}
