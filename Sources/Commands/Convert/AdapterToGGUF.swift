import Adapters
import Bytes
import Checkpoints
import GGUF
import ModelFamilies
import Quantization
import Tensors
import TypeMixtures

/// An adapter about to be written as GGUF: `NAME.lora_a` and `NAME.lora_b` for each matrix that it adapts.
///
/// llama.cpp multiplies B·A by α/r with one α for all modules and each module's own rank. What PEFT multiplies it by,
/// α/√r of rank-stabilized adapters and the patterns of α included, comes out of that α where all modules agree; the B
/// of those that do not is scaled.
struct AdapterToGGUF {
  let source: PlannedSource
  let metadata: GGUFMetadata
  private(set) var warnings: [Warning]

  private let adapter: Adapter
  private let base: AdapterBase
  private let factors: [Int: TensorFactors]
  /// The α of the whole file, from which llama.cpp computes the scale α/r.
  private let alpha: Double

  init(_ adapter: Adapter, base: AdapterBase, sideFile: (String) throws(Failure) -> [UInt8]?) throws(Failure) {
    self.adapter = adapter
    self.base = base
    let merged = try MergePlan(base: base.merge.model, adapters: [adapter], settings: MergeSettings(), type: nil)
    var factors: [Int: TensorFactors] = [:]
    for entry in try merged.factors(of: adapter) { factors[entry.tensor] = entry }
    self.factors = factors
    alpha = Self.commonAlpha(factors.values)
    warnings = merged.warnings
    var metadata = try ggufAdapterMetadata(
      config: base.config, alpha: Float(alpha), directoryName: FileName.last(of: adapter.path), sideFile: sideFile,
      warnings: &warnings)
    metadata["general.quantization_version"] = .uint32(GGUFMetadata.quantizationVersion)
    self.metadata = metadata
    var planned: [PlannedWeight] = []
    var used: Set<Int> = []
    for (weight, tensors) in base.weights {
      let adapted = tensors.filter { factors[$0] != nil }
      if adapted.isEmpty { continue }
      used.formUnion(adapted)
      planned += try Self.plan(weight, tensors, factors, adapter, base, alpha: alpha)
    }
    if let lost = factors.keys.filter({ !used.contains($0) }).min() {
      throw Failure(
        .unsupported, "is adapted, but llama.cpp does not use it",
        tensor: base.merge.model.source.tensors[lost].name.string)
    }
    source = try PlannedSource(adapter.source, planned)
  }

  /// The α that most modules have.
  private static func commonAlpha(_ factors: some Collection<TensorFactors>) -> Double {
    var counts: [Double: Int] = [:]
    for entry in factors where entry.scale != 0 { counts[entry.alpha, default: 0] += 1 }
    // An α of zero would mean a scale of one to llama.cpp.
    return counts.max { ($0.value, $1.key) < ($1.value, $0.key) }?.key ?? 1
  }

  // MARK: - The two factors of one tensor in GGUF

  private static func plan(
    _ weight: PlannedWeight, _ tensors: [Int], _ all: [Int: TensorFactors], _ adapter: Adapter, _ base: AdapterBase,
    alpha: Double
  ) throws(Failure) -> [PlannedWeight] {
    func refusal(_ reason: String) -> Failure {
      Failure(.unsupported, "\(reason); merge the adapter into its base instead", tensor: weight.name.string)
    }
    if case .stacked = weight.source { return try planStack(weight, tensors, all, adapter, alpha: alpha) }
    guard let tensor = tensors.first, let factors = all[tensor] else { return [] }
    let (rank, inputs, outputs) = (factors.rank, factors.inputs, factors.outputs)
    let factor = factors.factor(toAlpha: alpha)
    let a = try factors.a.source(times: 1, adapter)
    let b = try factors.b.source(times: factor, adapter)
    let names = weight.factorNames
    if let experts = factors.experts {
      guard !factors.isTransposed, case .values(let values) = b else {
        throw refusal("its experts lie [inputs, outputs]")
      }
      let rows: Range<Int>
      switch weight.transform {
      case .none: rows = 0..<outputs
      case .rowsOfEach(let range): rows = range
      default: throw refusal("its experts' rows are moved")
      }
      let own = (0..<experts).flatMap { expert in
        values[(expert * outputs + rows.lowerBound) * rank..<(expert * outputs + rows.upperBound) * rank]
      }
      return [
        PlannedWeight(name: names.a, shape: [experts, rank, inputs], source: a),
        PlannedWeight(name: names.b, shape: [experts, rows.count, rank], source: .values(own)),
      ]
    }
    let isTransposed = factors.isTransposed != (weight.transform == .transpose)
    if isTransposed {
      guard weight.name == Self.embedding else { throw refusal("its factors lie the other way round") }
      // The output multiplies with the same tensor where it is tied, and finds factors that it cannot use.
      guard !base.merge.model.tiesEmbeddings else {
        throw refusal("it is the output too (tied), which llama.cpp cannot adapt as an embedding")
      }
      guard case .stored = a else { throw refusal("its factors are not matrices") }
      return [
        PlannedWeight(name: names.a, shape: [inputs, rank], source: a, transform: .transpose),
        PlannedWeight(name: names.b, shape: [outputs, rank], source: b),
      ]
    }
    guard weight.name != Self.embedding else { throw refusal("an embedding is adapted as a linear layer") }
    let transform: WeightTransform
    switch weight.transform {
    case .none, .transpose: transform = .none
    case .permuteHeads: transform = weight.transform
    default: throw refusal("its values are not those of the base")
    }
    return [
      PlannedWeight(name: names.a, shape: [rank, inputs], source: a),
      PlannedWeight(name: names.b, shape: [outputs, rank], source: b, transform: transform),
    ]
  }

  private static let embedding = TensorName("token_embd.weight")

  /// Experts that the base stores one by one. llama.cpp wants one rank for all: zeros fill up what is smaller, and
  /// stand for an expert that is not adapted.
  private static func planStack(
    _ weight: PlannedWeight, _ tensors: [Int], _ all: [Int: TensorFactors], _ adapter: Adapter, alpha: Double
  ) throws(Failure) -> [PlannedWeight] {
    let experts = tensors.map { all[$0] }
    guard let first = experts.lazy.compactMap(\.self).first, weight.transform == .none else {
      throw Failure(.unsupported, "its experts' rows are moved", tensor: weight.name.string)
    }
    let rank = experts.reduce(0) { max($0, $1?.rank ?? 0) }
    let (inputs, outputs) = (first.inputs, first.outputs)
    let names = weight.factorNames
    let shapes = (a: [experts.count, rank, inputs], b: [experts.count, outputs, rank])
    let storedA = experts.compactMap { $0?.a.position }
    let storedB = experts.compactMap { $0?.b.position }
    let isPlain = experts.allSatisfy { $0?.rank == rank && $0?.factor(toAlpha: alpha) == 1 }
    if isPlain, storedA.count == experts.count, storedB.count == experts.count {
      return [
        PlannedWeight(name: names.a, shape: shapes.a, source: .stacked(storedA)),
        PlannedWeight(name: names.b, shape: shapes.b, source: .stacked(storedB)),
      ]
    }
    var a: [Float] = []
    var b: [Float] = []
    for expert in experts {
      guard let expert else {
        a += [Float](repeating: 0, count: rank * inputs)
        b += [Float](repeating: 0, count: outputs * rank)
        continue
      }
      a += try expert.a.values(adapter) + [Float](repeating: 0, count: (rank - expert.rank) * inputs)
      // The rank that the scale is divided by is that of the stack.
      let factor = Float(expert.scale * Double(rank) / alpha)
      let own = try expert.b.values(adapter)
      for row in 0..<outputs {
        b += own[row * expert.rank..<(row + 1) * expert.rank].map { $0 * factor }
        b += [Float](repeating: 0, count: rank - expert.rank)
      }
    }
    return [
      PlannedWeight(name: names.a, shape: shapes.a, source: .values(a)),
      PlannedWeight(name: names.b, shape: shapes.b, source: .values(b)),
    ]
  }
}

extension PlannedWeight {
  fileprivate var factorNames: (a: TensorName, b: TensorName) {
    (TensorName(name.string + GGUFAdapter.endingA), TensorName(name.string + GGUFAdapter.endingB))
  }
}

extension TensorFactors {
  /// The α with which llama.cpp computes this scale, rounded to float32.
  fileprivate var alpha: Double { Double(Float(scale * Double(rank))) }

  /// The factor on B that keeps the scale when the file has another α.
  fileprivate func factor(toAlpha alpha: Double) -> Double { self.alpha == alpha ? 1 : scale * Double(rank) / alpha }
}

extension TensorFactors.Values {
  fileprivate var position: Int? { if case .stored(let index) = self { index } else { nil } }

  fileprivate func values(_ adapter: Adapter) throws(Failure) -> [Float] {
    switch self {
    case .stored(let index): try adapter.floats(of: index)
    case .computed(let values): values
    }
  }

  fileprivate func source(times factor: Double, _ adapter: Adapter) throws(Failure) -> PlannedWeight.Source {
    if factor == 1, case .stored(let index) = self { return .stored(index) }
    let factor = Float(factor)
    return .values(try values(adapter).map { $0 * factor })
  }
}
