/// A tensor that autograd saves in the forward pass for the backward pass: its elements are a product.
public struct SavedTensor: Sendable, Hashable {
  public enum Element: Sendable, Hashable {
    /// As wide as the model's own.
    case model
    case byte, int32, float32, int64
  }

  /// The dependence of the number of elements on batch and sequence length.
  public enum Extent: Sendable, Hashable {
    case once
    /// Tokens of a sequence.
    case positions
    /// Batch × sequence.
    case tokens
    /// Batch × sequence².
    case pairs
  }

  public var element: Element
  public var extent: Extent
  public var sizes: [Int]
  /// Whether it is saved only where the weights themselves are trained.
  public var isForWeights = false
  /// Whether it is saved only with more than one sequence.
  public var isForBatches = false
  /// The lengths of a sequence for which it is there.
  public var lengths = 0..<Int.max
  /// A name for a tensor that layers share: all that give the same name save it once.
  public var shared: String?

  init(_ element: Element, _ extent: Extent, _ sizes: Int...) {
    self.element = element
    self.extent = extent
    self.sizes = sizes
  }

  var forWeights: SavedTensor {
    var tensor = self
    tensor.isForWeights = true
    return tensor
  }

  var forBatches: SavedTensor {
    var tensor = self
    tensor.isForBatches = true
    return tensor
  }

  package func shared(_ name: String) -> SavedTensor {
    var tensor = self
    tensor.shared = name
    return tensor
  }

  /// For sequences shorter than a window; of every length without one.
  package func below(_ window: Int?) -> SavedTensor {
    var tensor = self
    if let window { tensor.lengths = 0..<window }
    return tensor
  }

  /// For sequences no shorter than a window.
  package func from(_ window: Int) -> SavedTensor {
    var tensor = self
    tensor.lengths = window..<Int.max
    return tensor
  }
}
