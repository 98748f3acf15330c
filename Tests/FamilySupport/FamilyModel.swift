package import Bytes
import GGUF
package import JSON
package import Tensors

@testable package import ModelFamilies

/// A small model of a family: what its tables say, filled in with small numbers.
package struct FamilyModel {
  package let family: Family
  package var config: JSONValue
  package var tensors: [TensorInfo]

  /// - Parameter isComplete: with every weight that a model of the family may have.
  package init(_ family: Family, isComplete: Bool = false) throws {
    self.family = family
    var object: JSONObject = [
      "architectures": .array([.string(family.classes[0])]),
      "model_type": .string(family.textModelType ?? family.name),
    ]
    let sizes: KeyValuePairs<String, Int> = [
      "vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
      "num_key_value_heads": family.name == "gpt2" ? 4 : 2, "intermediate_size": family.name == "gpt2" ? 128 : 64,
      "max_position_embeddings": 64, "num_local_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
      "shared_expert_intermediate_size": 40, "sliding_window": 16,
    ]
    let spellings = Dictionary(family.spellings.map { ($0.key, $0.value) }) { first, _ in first }
    let known = Set(family.defaults.map(\.key) + ["num_key_value_heads"])
    for (key, size) in sizes where known.contains(key) { object[spellings[key] ?? key] = .number(JSONNumber(size)) }
    if known.contains("head_dim") { object["head_dim"] = .number(JSONNumber(16)) }
    if known.contains("original_max_position_embeddings") {
      object["original_max_position_embeddings"] = .number(JSONNumber(64))
    }
    object["tie_word_embeddings"] = .bool(!isComplete)
    for (key, constant) in family.constants { object[key] = constant.json }
    for (flag, _) in family.biasFlags { object[flag] = .bool(isComplete) }
    config = .object(object)
    tensors = []
    let lengths = try ModelSizes(ModelParameters(config, family: family), family)
    for rule in family.tensors where rule.presence != .alternative {
      guard rule.presence == .required || isComplete else { continue }
      let shape = try lengths.shape(rule.shape)
      for layer in 0..<(rule.isPerLayer ? 2 : 1) {
        for expert in 0..<(rule.isPerExpert ? 3 : 1) {
          let name = NumberedName.fill(rule.huggingFace, layer: layer, expert: expert)
          tensors.append(try TensorInfo(name: TensorName(name), type: .bf16, shape: shape))
        }
      }
    }
  }

  package func plan(
    directory: String = "model", files: [String: String] = [:]
  ) throws -> GGUFModelPlan {
    try planGGUF(config: config, tensors: tensors, directoryName: directory) { files[$0].map { Array($0.utf8) } }
  }

  package mutating func set(_ key: String, _ text: String) throws {
    config[key] = try JSONValue(parsing: Array(text.utf8))
  }

  package mutating func replace(_ name: String, with tensor: TensorInfo?) {
    guard let position = tensors.firstIndex(where: { $0.name.string == name }) else { return }
    tensors.replaceSubrange(position...position, with: tensor.map { [$0] } ?? [])
  }
}

/// The GGUF model of a plan, as its reader would see it.
package struct PlannedFile {
  package var metadata: GGUFMetadata
  package var tensors: [GGUFTensor]
  private let weights: [PlannedWeight]

  package init(_ plan: GGUFModelPlan) throws {
    metadata = GGUFMetadata(plan.metadata)
    weights = plan.weights
    tensors = []
    for weight in plan.weights {
      tensors.append(
        try GGUFTensor(name: weight.name, type: weight.isAlwaysF32 ? .f32 : .bf16, shape: weight.shape))
    }
  }

  /// Of a computed tensor.
  package func values(_ position: Int) -> [Float] {
    if case .values(let values) = weights[position].source { values } else { [] }
  }

  package func plan() throws -> HuggingFaceModelPlan {
    try planHuggingFace(metadata: metadata, tensors: tensors, values: values)
  }
}

package func failure(_ body: () throws -> some Any) -> Failure? {
  do {
    _ = try body()
    return nil
  } catch {
    return error as? Failure
  }
}
