import Bytes
import Tensors

/// The type of a tensor's elements by PyTorch's name for it.
struct ScalarType: Equatable {
  /// `bfloat16`; nil for a storage of bytes, whose tensors say themselves what they hold.
  let name: String?
  /// Bytes of one element.
  let width: Int
  /// Nil for what is nowhere written to other files.
  let element: ElementType?
  /// Values in an element, which count as one in shapes of PyTorch.
  let packed: Int

  private init(_ name: String?, _ width: Int, _ element: ElementType? = nil, packed: Int = 1) {
    self.name = name
    self.width = width
    self.element = element
    self.packed = packed
  }

  static let untyped = ScalarType(nil, 1)

  private static let table: [ScalarType] = [
    ScalarType("float64", 8, .f64), ScalarType("float32", 4, .f32), ScalarType("float16", 2, .f16),
    ScalarType("bfloat16", 2, .bf16), ScalarType("int64", 8, .i64), ScalarType("int32", 4, .i32),
    ScalarType("int16", 2, .i16), ScalarType("int8", 1, .i8), ScalarType("uint8", 1, .u8), ScalarType("bool", 1, .bool),
    ScalarType("complex64", 8, .c64), ScalarType("complex128", 16), ScalarType("complex32", 4),
    ScalarType("uint16", 2, .u16), ScalarType("uint32", 4, .u32), ScalarType("uint64", 8, .u64),
    ScalarType("float8_e4m3fn", 1, .f8e4m3), ScalarType("float8_e5m2", 1, .f8e5m2),
    ScalarType("float8_e4m3fnuz", 1, .f8e4m3fnuz), ScalarType("float8_e5m2fnuz", 1, .f8e5m2fnuz),
    ScalarType("float8_e8m0fnu", 1, .f8e8m0), ScalarType("float4_e2m1fn_x2", 1, .f4, packed: 2),
    ScalarType("quint8", 1), ScalarType("qint8", 1), ScalarType("qint32", 4), ScalarType("quint4x2", 1),
    ScalarType("quint2x4", 1),
  ]

  private static let byName = Dictionary(uniqueKeysWithValues: table.compactMap { row in row.name.map { ($0, row) } })

  private static let classes: [String: String] = [
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128", "ComplexHalfStorage": "complex32", "QUInt8Storage": "quint8",
    "QInt8Storage": "qint8", "QInt32Storage": "qint32", "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4",
  ]

  /// - Parameter dtype: `torch.uint16`.
  init?(dtype: String) {
    guard dtype.hasPrefix("torch."), let row = Self.byName[String(dtype.dropFirst("torch.".count))] else { return nil }
    self = row
  }

  /// What a storage of a class holds.
  ///
  /// - Parameter storage: `torch.HalfStorage`; of files from about 2017 to 2021 also `torch.cuda.HalfStorage`.
  init?(storage: String) {
    if ["torch.storage.UntypedStorage", "torch.UntypedStorage", "torch.cuda.UntypedStorage"].contains(storage) {
      self = .untyped
      return
    }
    let prefix = storage.hasPrefix("torch.cuda.") ? "torch.cuda." : "torch."
    guard storage.hasPrefix(prefix), let name = Self.classes[String(storage.dropFirst(prefix.count))],
      let row = Self.byName[name]
    else { return nil }
    self = row
  }
}
