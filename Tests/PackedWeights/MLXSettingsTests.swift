import JSON
import Testing

@testable import PackedWeights

/// What config.json says of MLX's groups.
@Suite struct MLXSettingsTests {
  @Test(arguments: [
    (four: "{\"bits\": 4, \"group_size\": 64, \"m\": false}", expected: ["-", "MLX-Q4/64"]),
    ("{\"bits\": 4, \"group_size\": 64, \"m\": true}", ["MLX-Q4/64", "MLX-Q4/64"]),
    ("{\"bits\": 8, \"group_size\": 32, \"m\": {}}", ["MLX-Q4/64", "MLX-Q8/32"]),
    ("{\"bits\": 4, \"group_size\": 32, \"mode\": \"mxfp4\", \"m\": {\"bits\": 8}}", ["MLX-Q8/64", "MLX-MXFP4/32"]),
    ("{\"bits\": 2, \"group_size\": 128, \"m\": {\"mode\": \"mxfp4\"}}", ["MLX-MXFP4/32", "MLX-Q2/128"]),
  ])
  func settings(_ text: String, _ expected: [String]) throws {
    for key in ["quantization", "quantization_config"] {
      let config = try JSONValue(parsing: Array("{\"\(key)\": \(text)}".utf8), .python, file: "config.json")
      let settings = try #require(try MLXSettings(config))
      let found = try ["m", "n"].map { module in
        try settings.format(of: module).map { "\($0.typeName)/\($0.groupSize)" } ?? "-"
      }
      #expect(found == expected)
    }
  }

  @Test(arguments: ["{}", "{\"quantization\": null}", "{\"quantization\": {\"bits\": 4, \"quant_method\": \"gptq\"}}"])
  func noSettings(_ text: String) throws {
    let config = try JSONValue(parsing: Array(text.utf8), .python, file: "config.json")
    #expect(try MLXSettings(config) == nil)
  }
}
