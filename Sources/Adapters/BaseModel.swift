public import Tensors

/// The facts about a base model that a merge of adapters needs.
public struct BaseModel: Sendable {
  /// A tensor of the base, in the order of `source`.
  public struct Entry: Sendable {
    /// The parameter's name in the model that was trained, which the adapters' keys speak of.
    public var parameter: String
    /// The part of a parameter in this tensor, where experts are stored one by one: expert, position and number of
    /// the parts that are put one below the other.
    public var part: Part?
    /// Whether it lies `[inputs, outputs]`; nil where only the shape can tell.
    public var isTransposed: Bool?
    /// Whether it is the weight of a router.
    public var isRouter: Bool

    public init(parameter: String, part: Part? = nil, isTransposed: Bool? = nil, isRouter: Bool = false) {
      self.parameter = parameter
      self.part = part
      self.isTransposed = isTransposed
      self.isRouter = isRouter
    }
  }

  public struct Part: Sendable, Equatable {
    public var expert: Int
    public var index: Int
    public var count: Int

    public init(expert: Int, index: Int, count: Int) {
      self.expert = expert
      self.index = index
      self.count = count
    }
  }

  public let source: any TensorSource
  public let entries: [Entry]
  /// `transformer`, `model`; what may stand in front of a path or be missing.
  public let basePrefix: String
  public let tiesEmbeddings: Bool
  /// The path of the output embedding, `lm_head`.
  public let outputEmbedding: String
  /// The class that a head for each of PEFT's tasks makes of this one.
  public var headClasses: [String: String] = [:]

  public init(
    source: any TensorSource, entries: [Entry], basePrefix: String, tiesEmbeddings: Bool, outputEmbedding: String
  ) {
    precondition(entries.count == source.tensors.count, "one entry for each tensor")
    self.source = source
    self.entries = entries
    self.basePrefix = basePrefix
    self.tiesEmbeddings = tiesEmbeddings
    self.outputEmbedding = outputEmbedding
  }
}

/// How adapters are merged.
public struct MergeSettings: Sendable {
  public enum Rounding: String, Sendable, CaseIterable {
    /// As PEFT's `merge_and_unload()`: deltas of linear layers are added in 32 bits, those of embeddings,
    /// experts and routers are rounded to the base's dtype first.
    case peft
    /// Everything is added in 32 bits and rounded once.
    case once
    /// As `merge_and_unload(safe_merge=True)`: every delta is rounded to the base's dtype first.
    case peftSafe = "peft-safe"
  }

  /// The adapters' weights, one for each; 1 where there are fewer.
  public var weights: [Double] = []
  public var combination = Combination.sum
  public var density = 0.5
  public var seed = 0
  public var rounding = Rounding.peft
  public var expertLayout = ExpertLayout.peft

  public init() {}

  func weight(_ adapter: Int) -> Double { adapter < weights.count ? weights[adapter] : 1 }
}
