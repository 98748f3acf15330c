/// A PEFT adapter directory, put together in code: every part can be changed before it is written.
public struct AdapterBuilder: Sendable {
  public var tensors: [SafetensorsBuilder.Tensor]
  /// Members of `adapter_config.json` in order, values as raw JSON.
  public var members: [(key: String, json: String)]
  /// Instead of the members.
  public var config: [UInt8]?
  /// Instead of the tensors.
  public var weights: [UInt8]?
  /// Files to leave out, and to put in.
  public var missing: Set<String> = []
  public var files: [(name: String, bytes: [UInt8])] = []

  public static let configName = "adapter_config.json"
  public static let weightsName = "adapter_model.safetensors"
  public static let prefix = "base_model.model."

  public init(_ tensors: [SafetensorsBuilder.Tensor], rank: Int = 4, alpha: Double = 8) {
    self.tensors = tensors
    members = [
      ("peft_type", "\"LORA\""), ("task_type", "\"CAUSAL_LM\""), ("base_model_name_or_path", "\"base\""),
      ("r", "\(rank)"), ("lora_alpha", "\(alpha)"), ("lora_dropout", "0.05"), ("bias", "\"none\""),
      ("fan_in_fan_out", "false"), ("init_lora_weights", "true"), ("inference_mode", "true"),
      ("target_modules", "[\"q_proj\", \"down_proj\"]"), ("modules_to_save", "null"), ("rank_pattern", "{}"),
      ("alpha_pattern", "{}"), ("use_rslora", "false"), ("use_dora", "false"), ("peft_version", "\"0.21.2\""),
    ]
  }

  /// A and B for the query and down projections of a model's layers.
  public static func llama(
    layers: Int = 2, modules: [String] = ["self_attn.q_proj", "mlp.down_proj"], rank: Int = 4, alpha: Double = 8,
    type: String = "F32", seed: UInt64 = 100
  ) -> AdapterBuilder {
    var tensors: [SafetensorsBuilder.Tensor] = []
    for layer in 0..<layers {
      for (number, module) in modules.enumerated() {
        guard let weight = TestModel.llamaWeights.first(where: { $0.module == module }) else { continue }
        tensors += linear(
          "model.layers.\(layer).\(module)", weight.shape, rank: rank, type: type,
          seed: seed + UInt64(32 * layer + 2 * number))
      }
    }
    return AdapterBuilder(tensors, rank: rank, alpha: alpha)
  }

  /// A `[rank, inputs]` and B `[outputs, rank]` of one module.
  public static func linear(
    _ module: String, _ shape: [Int], rank: Int = 4, type: String = "F32", seed: UInt64 = 100
  ) -> [SafetensorsBuilder.Tensor] {
    [
      TestModel.tensor("\(prefix)\(module).lora_A.weight", type, [rank, shape[1]], seed: seed),
      TestModel.tensor("\(prefix)\(module).lora_B.weight", type, [shape[0], rank], seed: seed + 1),
    ]
  }

  // MARK: - Changes

  /// Sets or adds a member; nil takes it away.
  public mutating func set(_ key: String, _ json: String?) {
    let index = members.firstIndex { $0.key == key }
    if let json {
      if let index { members[index].json = json } else { members.append((key, json)) }
    } else if let index {
      members.remove(at: index)
    }
  }

  public mutating func remove(_ name: String) { tensors.removeAll { $0.name == Self.prefix + name } }

  public mutating func rename(_ name: String, _ new: String) {
    for index in tensors.indices where tensors[index].name == Self.prefix + name { tensors[index].name = new }
  }

  /// Another shape, with values to match.
  public mutating func reshape(_ name: String, _ shape: [Int]) {
    for index in tensors.indices where tensors[index].name == Self.prefix + name {
      tensors[index] = TestModel.tensor(tensors[index].name, tensors[index].dtype, shape, seed: 55)
    }
  }

  public mutating func set(_ name: String, _ element: Int, _ value: Float) {
    for index in tensors.indices where tensors[index].name == Self.prefix + name { tensors[index].set(element, value) }
  }

  /// Adds a tensor of finite values.
  public mutating func add(_ name: String, _ shape: [Int], type: String = "F32", seed: UInt64 = 77) {
    tensors.append(TestModel.tensor(Self.prefix + name, type, shape, seed: seed))
  }

  // MARK: - Files

  public var json: String { "{" + members.map { "\"\($0.key)\": \($0.json)" }.joined(separator: ", ") + "}" }

  public func write(to directory: TemporaryDirectory, _ name: String = "adapter") throws -> String {
    let path = try directory.makeDirectory(name)
    var entries = files
    entries.append((Self.configName, config ?? Array(json.utf8)))
    entries.append((Self.weightsName, weights ?? SafetensorsBuilder(tensors, metadata: "{\"format\":\"pt\"}").bytes))
    for (file, bytes) in entries where !missing.contains(file) { try directory.write("\(name)/\(file)", bytes) }
    return path
  }
}
