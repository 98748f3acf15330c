import Quantization
public import Tensors

/// One tensor of the merged model: where its values come from and what is done to them, in this order.
public struct MergedTensor: Sendable {
  enum Origin: Sendable {
    /// Position in the base source.
    case base(Int)
    /// The adapter has the whole tensor.
    case adapter(Adapter, Int)
  }

  public let info: TensorInfo
  let origin: Origin
  var isStack = false
  /// With the whole tensor from an adapter: what it replaces, when that has the same shape.
  var replaced: Int?
  var deltas: [LowRankDelta] = []
  /// Added as they are, to a bias: α/r times a vector of the adapter.
  var vectors: [(adapter: Adapter, tensor: Int, scale: Float)] = []
  /// Rows of an embedding that an adapter has: row of the tensor, row of the adapter's.
  var rows: [(adapter: Adapter, tensor: Int, rowOf: [Int: Int])] = []
  /// Whether deltas are added to those rows, not replaced by them.
  var rowsComeFirst = false
  /// The dtype to which the delta is rounded before it is added; f32 leaves it as it is.
  var deltaType = FloatType.f32

  init(info: TensorInfo, origin: Origin) {
    self.info = info
    self.origin = origin
  }

  /// The base's tensor that all values come from.
  public var baseIndex: Int? {
    if case .base(let index) = origin { index } else { nil }
  }

  /// False when it is the base's tensor, value for value.
  public var isChanged: Bool { !deltas.isEmpty || !vectors.isEmpty || !rows.isEmpty || baseIndex == nil }

  /// Whether values are computed, which finds those that are not finite.
  public var hasSums: Bool { !deltas.isEmpty || !vectors.isEmpty }

  /// Values from one row to the next; 1 for a vector. A convolution's kernel is part of the row of its output;
  /// a stack of experts has the rows of all of them.
  var rowLength: Int { isStack ? info.shape.last ?? 1 : info.shape.dropFirst().reduce(1, *) }
}
