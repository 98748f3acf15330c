public import Bytes
public import Quantization

/// The tensors that a merge will write, decided from headers and configurations alone.
public struct MergePlan: Sendable {
  /// One adapter's part in one tensor.
  public struct Change: Sendable {
    /// Position in `source.tensors`.
    public var tensor: Int
    public var adapter: String
    /// The factor on B·A; nil when the adapter replaces values.
    public var scale: Double?
  }

  public let source: MergedSource
  /// The adapters' changes, in the order of the tensors.
  public let changes: [Change]
  /// The number of rows of the input embedding, when it is not the base's.
  public let vocabularySize: Int?
  /// False when input and output embedding, tied in the base, differ from now on.
  public let staysTied: Bool
  /// When layers were replicated: the base's layer that each of the result's comes from.
  public let replicatedLayers: [Int]?
  /// The head that an adapter brought, where the base has one of another class.
  public let classifier: Classifier?
  public let warnings: [Warning]

  /// The class that a classifier's head makes of the model.
  public struct Classifier: Sendable {
    public var architecture: String
    /// Rows of the head; nil where they are not labels.
    public var labels: Int?
    /// The adapter that brought the head.
    public var adapter: Adapter
  }

  /// - Parameters:
  ///   - type: what every floating-point tensor is written in; nil keeps each one's own.
  /// - Throws: `malformed` when an adapter does not fit the base, naming every tensor of it that found no place;
  ///   `unsupported` for what cannot be merged.
  public init(
    base: BaseModel, adapters: [Adapter], settings: MergeSettings, type: FloatType?
  ) throws(Failure) {
    var planner = try MergePlanner(base: base, adapters: adapters, settings: settings)
    try planner.placeReplacements()
    try planner.placeTokenRows()
    try planner.placeDeltas()
    try planner.checkAllUsed()
    try planner.tie()
    planner.dropUnusedHead()
    let items = try planner.items(in: type)
    source = try MergedSource(items, base: base.source)
    changes = planner.slots.enumerated().flatMap { index, slot in
      slot.changes.map { Change(tensor: index, adapter: adapters[$0.adapter].name, scale: $0.scale) }
    }
    vocabularySize = planner.vocabularySize
    staysTied = planner.staysTied
    replicatedLayers = planner.replicatedLayers
    classifier = planner.classifier
    warnings = Warning.grouped(planner.warnings)
  }
}
