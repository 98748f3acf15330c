/// One adapter's part in one tensor, as a report tells it.
public struct MergeChange: Sendable {
  public var tensor: String
  public var adapter: String
  /// The factor on B·A; nil where the adapter replaced values.
  public var scale: Double?
  /// ‖W′ − W‖ / ‖W‖ of the tensor; nil before it was computed, and where the shape changed.
  public var relativeChange: Double?

  package init(tensor: String, adapter: String, scale: Double? = nil, relativeChange: Double? = nil) {
    self.tensor = tensor
    self.adapter = adapter
    self.scale = scale
    self.relativeChange = relativeChange
  }
}
