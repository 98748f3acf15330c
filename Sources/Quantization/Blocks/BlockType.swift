import Kernels

/// The kinds of blocks that ggml knows: a fixed number of consecutive values of a row is stored in a fixed
/// number of bytes, with the scales among them. The raw value is the name that ggml prints.
// swift-format-ignore: AlwaysUseLowerCamelCase
public enum BlockType: String, Sendable, CaseIterable {
  case q4_0, q4_1, q5_0, q5_1, q8_0
  case q2_K, q3_K, q4_K, q5_K, q6_K
  case iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s, iq1_s, iq1_m
  case iq4_nl, iq4_xs
  case tq1_0, tq2_0
  case mxfp4, nvfp4
  case q1_0, q2_0
}

extension BlockType {
  /// An encoder's use of the relative importance of a row's columns.
  public enum Importance: Sendable {
    /// Ignored.
    case unused
    /// Errors in important columns are made smaller, at the cost of others.
    case optional
    /// Without it ggml refuses to encode.
    case required
  }

  /// All that differs from kind to kind; a new one is a case, a row here and a file with its codec.
  var row: BlockRow {
    switch self {
    case .q4_0: unsafe .init(32, 18, Q4_0.self, .optional, nibble_decode_q4_0, nibble_encode_q4_0)
    case .q4_1: unsafe .init(32, 20, Q4_1.self, .optional, nibble_decode_q4_1, nibble_encode_q4_1)
    case .q5_0: unsafe .init(32, 22, Q5_0.self, .optional, nibble_decode_q5_0, nibble_encode_q5_0)
    case .q5_1: unsafe .init(32, 24, Q5_1.self, .optional, nibble_decode_q5_1, nibble_encode_q5_1)
    case .q8_0: unsafe .init(32, 34, Q8_0.self, .unused, nibble_decode_q8_0, nibble_encode_q8_0)
    case .q2_K: unsafe .init(256, 84, Q2_K.self, .optional, nibble_decode_q2_k, nibble_encode_q2_k)
    case .q3_K: unsafe .init(256, 110, Q3_K.self, .optional, nibble_decode_q3_k, nibble_encode_q3_k)
    case .q4_K: unsafe .init(256, 144, Q4_K.self, .optional, nibble_decode_q4_k, nibble_encode_q4_k)
    case .q5_K: unsafe .init(256, 176, Q5_K.self, .optional, nibble_decode_q5_k, nibble_encode_q5_k)
    case .q6_K: unsafe .init(256, 210, Q6_K.self, .optional, nibble_decode_q6_k, nibble_encode_q6_k)
    case .iq2_xxs: unsafe .init(256, 66, IQ2_XXS.self, .required)
    case .iq2_xs: unsafe .init(256, 74, IQ2_XS.self, .required)
    case .iq2_s: unsafe .init(256, 82, IQ2_S.self, .optional)
    case .iq3_xxs: unsafe .init(256, 98, IQ3_XXS.self, .optional)
    case .iq3_s: unsafe .init(256, 110, IQ3_S.self, .optional)
    case .iq1_s: unsafe .init(256, 50, IQ1_S.self, .required)
    case .iq1_m: unsafe .init(256, 56, IQ1_M.self, .optional)
    case .iq4_nl: unsafe .init(32, 18, IQ4_NL.self, .optional, nibble_decode_iq4_nl, nibble_encode_iq4_nl)
    case .iq4_xs: unsafe .init(256, 136, IQ4_XS.self, .optional, nibble_decode_iq4_xs, nibble_encode_iq4_xs)
    case .tq1_0: unsafe .init(256, 54, TQ1_0.self, .unused)
    case .tq2_0: unsafe .init(256, 66, TQ2_0.self, .unused)
    case .mxfp4: unsafe .init(32, 17, MXFP4.self, .unused, nibble_decode_mxfp4, nibble_encode_mxfp4)
    case .nvfp4: unsafe .init(64, 36, NVFP4.self, .unused)
    case .q1_0: unsafe .init(128, 18, Q1_0.self, .unused)
    case .q2_0: unsafe .init(64, 18, Q2_0.self, .unused)
    }
  }
}

/// A row of the table in `BlockType.row`.
@safe struct BlockRow {
  typealias Decoder = @convention(c) @Sendable (UnsafePointer<UInt8>?, Int, UnsafeMutablePointer<Float>?) -> Void
  typealias Encoder =
    @convention(c) @Sendable (
      UnsafePointer<Float>?, Int, Int, UnsafePointer<Float>?, UnsafeMutablePointer<UInt8>?
    ) -> Void

  var valuesPerBlock: Int
  var bytesPerBlock: Int
  var codec: any BlockCodec.Type
  var importance: BlockType.Importance
  /// Faster than the codec, with the same result; nil for kinds that are rarely met.
  var decoder: Decoder?
  var encoder: Encoder?

  init(
    _ valuesPerBlock: Int, _ bytesPerBlock: Int, _ codec: any BlockCodec.Type, _ importance: BlockType.Importance,
    _ decoder: Decoder? = nil, _ encoder: Encoder? = nil
  ) {
    self.valuesPerBlock = valuesPerBlock
    self.bytesPerBlock = bytesPerBlock
    self.codec = codec
    self.importance = importance
    unsafe self.decoder = decoder
    unsafe self.encoder = encoder
  }
}

extension BlockType {
  public var name: String { rawValue }

  /// Values of one block, all of one row.
  public var valuesPerBlock: Int { row.valuesPerBlock }

  public var bytesPerBlock: Int { row.bytesPerBlock }

  /// False for kinds that can only be decoded.
  public var canEncode: Bool { unsafe row.encoder != nil || row.codec is any BlockEncoder.Type }

  /// Whether an encoder may, or must, be given the importance of columns.
  public var importance: Importance { row.importance }

  /// Bytes of the blocks of `values` values; nil unless these fill whole blocks.
  public func byteCount(_ values: Int) -> Int? {
    let row = row
    guard values >= 0, values % row.valuesPerBlock == 0 else { return nil }
    let (bytes, overflow) = (values / row.valuesPerBlock).multipliedReportingOverflow(by: row.bytesPerBlock)
    return overflow ? nil : bytes
  }
}
