public import Tensors

/// How the values of a weight change between Hugging Face and GGUF. Shapes are row-major.
public enum WeightTransform: Sendable, Equatable {
  case none
  /// `[heads · 2 · n, …]`: the rows of each head from Hugging Face's half-split rotary order to ggml's interleaved
  /// one. Row `h · 2n + i · n + j` becomes row `h · 2n + 2j + i`.
  case permuteHeads(Int)
  /// The inverse of `permuteHeads`.
  case unpermuteHeads(Int)
  /// `[a, b]` becomes `[b, a]`: GPT-2's Conv1D stores inputs × outputs.
  case transpose
  /// Added to every value, in float32.
  case addScalar(Float)
  /// `[n, a, b]` becomes `[n, rows, b]`: these rows of each of the n matrices.
  case rowsOfEach(Range<Int>)
}

/// A tensor to be written, and what it is made of.
public struct PlannedWeight: Sendable, Equatable {
  public enum Source: Sendable, Equatable {
    /// A tensor that was passed in, by position.
    case stored(Int)
    /// Tensors of one shape, in order; their number becomes dimension 0.
    case stacked([Int])
    /// Computed from the configuration.
    case values([Float])
    /// One matrix along dimension 0 of a tensor that was passed in.
    case part(of: Int, index: Int)
  }

  /// The tensor's name in the output.
  public var name: TensorName
  /// The tensor's shape in the output.
  public var shape: [Int]
  public var source: Source
  public var transform: WeightTransform
  /// In GGUF: float32 whatever the file's type is, as norms, biases, everything else of one dimension and routers are.
  public var isAlwaysF32: Bool

  public init(
    name: TensorName, shape: [Int], source: Source, transform: WeightTransform = .none, isAlwaysF32: Bool = false
  ) {
    self.name = name
    self.shape = shape
    self.source = source
    self.transform = transform
    self.isAlwaysF32 = isAlwaysF32
  }
}
