/// A tiny model directory whose linear layers Nibble quantizes: its class is known to nobody, so names decide.
public struct TestModel: Sendable {
  public var tensors: [SafetensorsBuilder.Tensor]
  /// Raw JSON; nil leaves the file out.
  public var config: String? =
    "{\"architectures\": [\"TestForCausalLM\"], \"model_type\": \"test\", \"dtype\": \"bfloat16\"}"
  /// Files beside the weights.
  public var sideFiles: [(name: String, text: String)] = []

  public init(_ tensors: [SafetensorsBuilder.Tensor]) { self.tensors = tensors }

  /// Layers of two square linear weights and a norm, an embedding and a head.
  public init(layers: Int, width: Int = 64, type: String = "BF16", seed: UInt64 = 1) {
    tensors = [Self.tensor("model.embed_tokens.weight", type, [width / 2, width], seed: seed)]
    for layer in 0..<layers {
      let path = "model.layers.\(layer)"
      let own = seed + 16 * UInt64(layer)
      tensors.append(Self.tensor("\(path).self_attn.q_proj.weight", type, [width, width], seed: own + 1))
      tensors.append(Self.tensor("\(path).mlp.down_proj.weight", type, [width, width], seed: own + 2))
      tensors.append(Self.tensor("\(path).input_layernorm.weight", type, [width], seed: own + 3))
    }
    tensors.append(Self.tensor("lm_head.weight", type, [width / 2, width], seed: seed + 4))
  }

  /// Finite values of about ±1.
  public static func tensor(
    _ name: String, _ type: String, _ shape: [Int], seed: UInt64
  ) -> SafetensorsBuilder.Tensor {
    var generator = SplitMix64(seed: seed)
    let values = (0..<shape.reduce(1, *)).map { _ in Float.random(in: -1...1, using: &generator) }
    return SafetensorsBuilder.Tensor(name, type, shape, bytes(of: values, as: type))
  }

  public static func bytes(of values: [Float], as type: String) -> [UInt8] {
    values.flatMap { value -> [UInt8] in
      switch type {
      case "BF16": littleEndian(UInt64(value.bitPattern >> 16), 2)
      case "F16": littleEndian(UInt64(Float16(value).bitPattern), 2)
      case "F64": littleEndian(Double(value).bitPattern, 8)
      default: littleEndian(UInt64(value.bitPattern), 4)
      }
    }
  }

  static func littleEndian(_ value: UInt64, _ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * UInt64($0))) }
  }

  public func write(to directory: TemporaryDirectory, _ name: String = "model") throws -> String {
    try write(to: directory, name, shards: [tensors])
  }

  /// One file for each list of tensors, with an index when there are several.
  public func write(
    to directory: TemporaryDirectory, _ name: String, shards: [[SafetensorsBuilder.Tensor]]
  ) throws -> String {
    let model = try directory.makeDirectory(name)
    var map: [String] = []
    for (number, tensors) in shards.enumerated() {
      let file = shards.count == 1 ? "model.safetensors" : "model-0000\(number + 1)-of-0000\(shards.count).safetensors"
      try directory.write("\(name)/\(file)", SafetensorsBuilder(tensors, metadata: "{\"format\":\"pt\"}").bytes)
      map += tensors.map { "\"\($0.name)\":\"\(file)\"" }
    }
    if shards.count > 1 {
      let index = "{\"weight_map\":{\(map.joined(separator: ","))}}"
      try directory.write("\(name)/model.safetensors.index.json", Array(index.utf8))
    }
    if let config { try directory.write("\(name)/config.json", Array(config.utf8)) }
    for file in sideFiles { try directory.write("\(name)/\(file.name)", Array(file.text.utf8)) }
    return model
  }
}
