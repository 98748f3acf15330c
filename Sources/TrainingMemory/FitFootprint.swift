/// Bytes on one GPU.
public struct FitFootprint: Sendable, Equatable {
  /// Parameters of the model, statistics of 4-bit weights included.
  public var weights: Int
  public var adapter: Int
  public var gradients: Int
  public var optimizer: Int
  public var activations: Int
  /// Memory of the framework and working memory: neither state nor saved for the backward pass.
  public var overhead: Int
  public var total: Int
}
