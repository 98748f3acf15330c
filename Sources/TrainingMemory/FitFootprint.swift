/// Bytes on one GPU.
public struct FitFootprint: Sendable, Equatable {
  /// Parameters of the model, statistics of 4-bit weights included.
  public var weights: Int
  public var adapter: Int
  public var gradients: Int
  public var optimizer: Int
  public var activations: Int
  /// What is neither state nor saved for the backward pass: the framework and working memory.
  public var overhead: Int
  public var total: Int
}
