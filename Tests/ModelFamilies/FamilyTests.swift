import Bytes
import FamilySupport
import GGUF
import JSON
import Tensors
import Testing

@testable import ModelFamilies

/// Laws that every family keeps: a new row of the registry is tested by being there.
@Suite struct FamilyTests {
  private static let models: [(family: String, isComplete: Bool)] = Family.all.flatMap {
    [($0.name, false), ($0.name, true)]
  }

  private func model(_ name: String, _ isComplete: Bool) throws -> FamilyModel {
    try FamilyModel(try #require(Family.all.first { $0.name == name }), isComplete: isComplete)
  }

  @Test func namesAreUnique() {
    let classes = Family.all.flatMap { $0.classes + $0.headlessClasses + $0.multimodalClasses }
    #expect(Set(classes).count == classes.count)
    #expect(Set(Family.all.map(\.name)).count == Family.all.count)
    for family in Family.all {
      let written = family.tensors.filter { $0.presence != .alternative }
      #expect(Set(written.map(\.gguf)).count == written.count, "\(family.name)")
      #expect(Set(written.map(\.huggingFace)).count == written.count, "\(family.name)")
      #expect(written.contains { $0.presence == .required && $0.isPerLayer }, "\(family.name)")
      for (flag, patterns) in family.biasFlags {
        for pattern in patterns {
          #expect(written.contains { $0.gguf == pattern && $0.presence == .optional }, "\(family.name) \(flag)")
        }
      }
    }
  }

  /// There and back again, and there once more: nothing changes.
  @Test(arguments: models) func aModelSurvivesTheWayToGGUFAndBack(family: String, isComplete: Bool) throws {
    let model = try model(family, isComplete)
    let there = try model.plan()
    #expect(there.warnings.isEmpty)
    let back = try PlannedFile(there).plan()
    #expect(back.warnings.isEmpty)
    // Mistral's GGUF form is Llama's.
    #expect(back.family.name == (family == "mistral" ? "llama" : family))
    #expect(Set(back.weights.map(\.name)) == Set(model.tensors.map(\.name)))
    for weight in back.weights {
      let original = try #require(model.tensors.first { $0.name == weight.name })
      #expect(weight.shape == original.shape, "\(weight.name)")
    }
    let tensors = try back.weights.map { weight in
      try TensorInfo(name: weight.name, type: .bf16, shape: weight.shape)
    }
    let again = try planGGUF(config: back.config, tensors: tensors, directoryName: "model") { _ in nil }
    #expect(again.weights.map(\.name) == there.weights.map(\.name))
    #expect(again.weights.map(\.shape) == there.weights.map(\.shape))
    #expect(again.weights.map(\.transform) == there.weights.map(\.transform))
    let pairs = try again.metadata.map { "\($0.key) \(try text($0.value))" }
    #expect(try pairs == there.metadata.map { "\($0.key) \(try text($0.value))" })
    #expect(again.warnings.isEmpty)
  }

  private func text(_ value: GGUFValue) throws -> String {
    guard case .array(let array) = value else { return "\(value)" }
    return "\(array.elementType) \(try array.values())"
  }

  /// What is done to a weight on the way back undoes what was done on the way there.
  @Test(arguments: models) func transformsAreUndone(family: String, isComplete: Bool) throws {
    let model = try model(family, isComplete)
    let there = try model.plan()
    let back = try PlannedFile(there).plan()
    for weight in back.weights {
      switch weight.source {
      case .stored(let position):
        let source = there.weights[position]
        guard case .stored(let original) = source.source else {
          Issue.record("\(weight.name) was no stored tensor")
          continue
        }
        #expect(model.tensors[original].name == weight.name)
        switch (source.transform, weight.transform) {
        case (.none, .none), (.transpose, .transpose): break
        case (.permuteHeads(let heads), .unpermuteHeads(let same)): #expect(heads == same)
        case (.addScalar(let one), .addScalar(let other)): #expect(one + other == 0)
        default: Issue.record("\(weight.name): \(source.transform), then \(weight.transform)")
        }
      case .part(let position, let index):
        guard case .stacked(let originals) = there.weights[position].source else {
          Issue.record("\(weight.name) was no stack")
          continue
        }
        #expect(model.tensors[originals[index]].name == weight.name)
        #expect(weight.transform == .none)
      default: Issue.record("\(weight.name) comes from nowhere")
      }
    }
  }

  @Test(arguments: models) func everyMissingWeightIsNamed(family: String, isComplete: Bool) throws {
    let model = try model(family, isComplete)
    for tensor in model.tensors {
      var damaged = model
      damaged.replace(tensor.name.string, with: nil)
      let found = failure { try damaged.plan() }
      // A bias that no flag demands may be in no layer; one that is missing in a layer is missed there, or is one too
      // many in the other.
      let isNamed = found?.tensor == tensor.name.string || found?.message.contains("is missing") ?? false
      #expect(found?.code == .malformed && isNamed, "\(tensor.name)")
    }
    let file = try PlannedFile(try model.plan())
    for tensor in file.tensors where tensor.name != "output.weight" {
      var damaged = file
      damaged.tensors.removeAll { $0.name == tensor.name }
      #expect(failure { try damaged.plan() } != nil, "\(tensor.name)")
    }
  }

  @Test(arguments: models) func everyWrongShapeIsNamed(family: String, isComplete: Bool) throws {
    let model = try model(family, isComplete)
    for tensor in model.tensors {
      for shape in [tensor.shape + [1], tensor.shape.map { $0 + 1 }, Array(tensor.shape.dropLast())] {
        var damaged = model
        damaged.replace(
          tensor.name.string, with: try TensorInfo(name: tensor.name, type: tensor.type, shape: shape))
        let found = failure { try damaged.plan() }
        #expect(found?.code == .malformed && found?.tensor == tensor.name.string, "\(tensor.name) \(shape)")
      }
    }
    let file = try PlannedFile(try model.plan())
    for (position, tensor) in file.tensors.enumerated() {
      var damaged = file
      damaged.tensors[position] = try GGUFTensor(name: tensor.name, type: .f32, shape: tensor.shape.map { $0 + 1 })
      let found = failure { try damaged.plan() }
      #expect(found?.code == .malformed, "\(tensor.name)")
    }
  }

  @Test func expertsInOneTensorAreTakenApart() throws {
    for name in ["qwen2_moe", "qwen3_moe"] {
      var model = try self.model(name, false)
      let apart = try model.plan()
      let isExpert = { (tensor: TensorInfo) in tensor.name.string.contains(".experts.") }
      model.tensors.removeAll(where: isExpert)
      for layer in 0..<2 {
        let path = "model.layers.\(layer).mlp.experts."
        model.tensors.append(try TensorInfo(name: TensorName(path + "gate_up_proj"), type: .bf16, shape: [3, 48, 32]))
        model.tensors.append(try TensorInfo(name: TensorName(path + "down_proj"), type: .bf16, shape: [3, 32, 24]))
      }
      let together = try model.plan()
      #expect(Set(together.weights.map(\.name)) == Set(apart.weights.map(\.name)))
      let gate = try #require(together.weights.first { $0.name == "blk.1.ffn_gate_exps.weight" })
      let up = try #require(together.weights.first { $0.name == "blk.1.ffn_up_exps.weight" })
      #expect(gate.shape == [3, 24, 32] && up.shape == [3, 24, 32])
      #expect(gate.source == up.source)
      #expect(gate.transform == .rowsOfEach(0..<24) && up.transform == .rowsOfEach(24..<48))
    }
  }

  @Test func whatIsAlwaysFloat32() throws {
    let model = try model("qwen2_moe", true)
    let always = try model.plan().weights.filter { $0.isAlwaysF32 && $0.shape.count > 1 }.map(\.name.string)
    #expect(
      Set(always) == Set((0..<2).flatMap { ["blk.\($0).ffn_gate_inp.weight", "blk.\($0).ffn_gate_inp_shexp.weight"] }))
    #expect(try model.plan().weights.allSatisfy { $0.shape.count > 1 || $0.isAlwaysF32 })
  }
}
