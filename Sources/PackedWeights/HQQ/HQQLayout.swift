import Bytes
import JSON
import Quantization
import Tensors

/// The checkpoints of HQQ: `M.W_q`, packed codes, beside `M.scale`, `M.zero` and `M.shape`, and what else the module
/// says of itself, each word and number in a tensor of its own.
struct HQQLayout: PackedLayout {
  static let codes = ".W_q"
  /// What no parameter of a model is called.
  private static let others = [
    ".W_q", ".zero", ".packing", ".unpack_view_dtype", ".view_as_float", ".encoded_state_dict", ".stores_quant_config",
    ".quant_zero", ".quant_scale",
  ]

  private let type: FloatType

  var name: String { "HQQ" }

  /// HQQ itself writes no settings into config.json, transformers does.
  init?(_ config: JSONValue?, of checkpoint: any StoredTensors) throws(Failure) {
    let method = QuantizationSettings.stated(config)?.method
    guard method == "hqq" || method == nil, checkpoint.tensors.contains(where: { $0.name.hasSuffix(Self.codes) }) else {
      return nil
    }
    let isHalf = checkpoint.tensors.contains { $0.type == .f16 && $0.name.hasSuffix(".scale") }
    type = try QuantizationSettings.weightType(config, stored: isHalf ? .f16 : .bf16)
  }

  func weight(_ index: Int, in checkpoint: any StoredTensors) throws(Failure) -> (any PackedWeight)? {
    guard let module = checkpoint.tensors[index].name.dropping(suffix: Self.codes) else { return nil }
    guard checkpoint.index(of: module + ".weight") == nil else {
      throw Failure(.malformed, "is there beside '\(module).weight'")
    }
    return try HQQWeight(HQQModule(module, index, in: checkpoint), type)
  }

  func remainder(_ index: Int, in checkpoint: any StoredTensors) -> PackedRemainder {
    let name = checkpoint.tensors[index].name
    return Self.others.contains { name.hasSuffix($0) } ? .orphan : .plain
  }
}

/// What the tensors of one module of HQQ say.
struct HQQModule {
  private static let members = [
    "scale", "zero", "shape", "nbits", "group_size", "axis", "packing", "unpack_view_dtype", "view_as_float",
    "quant_scale", "quant_zero", "compute_dtype", "offload_meta", "encoded_state_dict", "stores_quant_config",
    "channel_wise", "optimize", "round_zero",
  ]
  /// Longer is no word that HQQ writes.
  private static let textLimit = 64

  let name: TensorName
  let checkpoint: any StoredTensors
  let codes: Int
  let scale: Int
  let zero: Int
  let shape: [Int]
  let groupSize: Int
  /// Whether the weight was cut along its columns: a group is a column of [groupSize, groups], not a row of
  /// [groups, groupSize].
  let isTurned: Bool
  let packing: HQQPacking
  let parts: [Int]

  /// - Parameter codes: position of the packed codes.
  /// - Throws: `malformed` where a member is missing or means nothing, `unsupported` for a form not known here.
  init(_ module: TensorName, _ codes: Int, in checkpoint: any StoredTensors) throws(Failure) {
    func index(_ member: String) -> Int? { checkpoint.index(of: module + ".\(member)") }
    func need(_ member: String) throws(Failure) -> Int {
      guard let found = index(member) else { throw Failure(.malformed, "'.\(member)' is missing beside it") }
      return found
    }
    func numbers(_ member: String, _ count: Int) throws(Failure) -> [Int] {
      let position = try need(member)
      let info = checkpoint.tensors[position]
      guard info.elementCount == count, [.i64, .i32, .u8].contains(info.type) else {
        throw Failure(
          .malformed, "'.\(member)' is \(info.type.name) of shape \(info.shape), needed are \(count) whole numbers")
      }
      let bytes = try checkpoint.bytes(of: position)
      return (0..<count).map { at in
        switch info.type {
        case .u8: Int(bytes[at])
        case .i32: Int(bytes.span.rawBytes.load(at: 4 * at, as: Int32.self))
        default: Int(bytes.span.rawBytes.load(at: 8 * at, as: Int64.self))
        }
      }
    }
    for (member, what) in [
      ("scale_q", "quantized scales"), ("zero_q", "quantized zero points"),
      ("zero_scale", "scales that were offloaded"),
    ] where index(member) != nil {
      throw Failure(.unsupported, "has '.\(member)' beside it: \(what) are not read")
    }
    for member in ["quant_scale", "quant_zero"] where index(member) != nil {
      if try numbers(member, 1) != [0] {
        throw Failure(.unsupported, "'.\(member)' is set: what is quantized twice is not read")
      }
    }
    if index("channel_wise") != nil, try numbers("channel_wise", 1) != [1] {
      throw Failure(.unsupported, "'.channel_wise' is not set, known here are groups")
    }
    let axis = try numbers("axis", 1)[0]
    guard axis == 0 || axis == 1 else { throw Failure(.malformed, "'.axis' is \(axis), allowed are 0 and 1") }
    let text = try need("packing")
    guard checkpoint.tensors[text].byteCount <= Self.textLimit else {
      throw Failure(.malformed, "'.packing' has \(checkpoint.tensors[text].byteCount) bytes, and is no word")
    }
    let word = String(decoding: try checkpoint.bytes(of: text), as: UTF8.self)
    guard let packing = HQQPacking(rawValue: word) else {
      let known = HQQPacking.allCases.map(\.rawValue).joined(separator: ", ")
      throw Failure(.unsupported, "'.packing' is '\(word)', known here are \(known)")
    }
    let size = try numbers("group_size", 1)[0]
    guard size > 0 else { throw Failure(.malformed, "'.group_size' is \(size), needed is a positive number") }
    name = module + ".weight"
    self.checkpoint = checkpoint
    self.codes = codes
    self.packing = packing
    scale = try need("scale")
    zero = try need("zero")
    shape = try numbers("shape", 2)
    groupSize = size
    isTurned = axis == 0
    parts = [codes] + Self.members.compactMap(index)
  }
}

/// How codes lie in bytes or words: a field of each holds codes that are far apart. The matrix of codes is cut into as
/// many parts as a unit has fields, one above the other, of which the first is in the highest bits.
enum HQQPacking: String, CaseIterable, Sendable {
  case bytes = "8bit_u8"
  case nibbles = "4bit_u8"
  /// Ten in a word of 32 bits, the rows of codes filled up to a multiple of ten.
  case words = "3bit_32"
  case pairs = "2bit_u8"
  case bits = "1bit_u8"

  var width: Int {
    switch self {
    case .bytes: 8
    case .nibbles: 4
    case .words: 3
    case .pairs: 2
    case .bits: 1
    }
  }

  /// Bytes of a unit, and codes in it.
  var unit: Int { self == .words ? 4 : 1 }
  var fields: Int { self == .words ? 10 : 8 / width }
}
