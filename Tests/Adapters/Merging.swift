import Bytes
import Quantization
import Safetensors
import Tensors
import TestSupport
import Testing

@testable import Adapters

/// A base and adapters in memory, merged and read back.
struct Merging {
  let directory: TemporaryDirectory
  var base: [SafetensorsBuilder.Tensor]
  /// By the tensor's name; its own name where nothing is said.
  var entries: [String: BaseModel.Entry] = [:]
  var basePrefix = "model"
  var isTied = false
  var settings = MergeSettings()
  var type: FloatType?

  init(_ base: [SafetensorsBuilder.Tensor]) throws {
    directory = try TemporaryDirectory()
    self.base = base
  }

  func plan(_ adapters: AdapterBuilder...) throws -> MergePlan { try plan(adapters) }

  func plan(_ adapters: [AdapterBuilder]) throws -> MergePlan {
    let path = try directory.write("base.safetensors", SafetensorsBuilder(base).bytes)
    let source = try SafetensorsFile(InputFile(path: path))
    let model = BaseModel(
      source: source,
      entries: base.map { entries[$0.name] ?? BaseModel.Entry(parameter: $0.name, isTransposed: false) },
      basePrefix: basePrefix, tiesEmbeddings: isTied, outputEmbedding: "lm_head")
    let opened = try adapters.enumerated().map { number, adapter in
      try Adapter(path: adapter.write(to: directory, "adapter\(number)"))
    }
    return try MergePlan(base: model, adapters: opened, settings: settings, type: type)
  }

  func merged(_ adapters: AdapterBuilder...) throws -> Merged { try Merged(plan(adapters)) }
}

/// The tensors of a merged model.
struct Merged {
  let plan: MergePlan
  private let values: [String: [Float]]

  /// Reads every tensor whole and again in pieces of odd sizes, which must not matter.
  init(_ plan: MergePlan) throws {
    self.plan = plan
    var values: [String: [Float]] = [:]
    for (index, info) in plan.source.tensors.enumerated() {
      let whole = try Self.read(plan.source, index, 0..<info.byteCount)
      var pieces: [UInt8] = []
      let width = info.type.bitWidth / 8
      while pieces.count < info.byteCount {
        let end = min(info.byteCount, pieces.count + 3 * width)
        pieces += try Self.read(plan.source, index, pieces.count..<end)
      }
      #expect(whole == pieces, "\(info.name.string)")
      values[info.name.string] = try floats(whole, info.type)
    }
    self.values = values
  }

  private static func read(_ source: MergedSource, _ index: Int, _ range: Range<Int>) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0xEE, count: range.count)
    try source.read(index, at: range.lowerBound, into: &bytes)
    return bytes
  }

  subscript(_ name: String) -> [Float]? { values[name] }

  var names: [String] { plan.source.tensors.map(\.name.string) }

  func shape(_ name: String) -> [Int]? { plan.source.tensors.first { $0.name.string == name }?.shape }
}

/// Little-endian values in 32 bits.
private func floats(_ bytes: [UInt8], _ type: ElementType) throws -> [Float] {
  let width = type.bitWidth / 8
  return stride(from: 0, to: bytes.count, by: width).map { start in
    let bits = bytes[start..<start + width].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    switch type {
    case .bf16: return Float(bitPattern: bits << 16)
    case .f16: return Float(Float16(bitPattern: UInt16(bits)))
    default: return Float(bitPattern: bits)
    }
  }
}

extension SafetensorsBuilder.Tensor {
  /// From its values.
  static func of(_ name: String, _ shape: [Int], _ values: [Float], as type: String = "F32") -> Self {
    .init(name, type, shape, TestModel.bytes(of: values, as: type))
  }

  /// A tensor of an adapter.
  static func adapter(_ name: String, _ shape: [Int], _ values: [Float], as type: String = "F32") -> Self {
    of(AdapterBuilder.prefix + name, shape, values, as: type)
  }
}

/// Whole numbers from -4 to 4, whose products are exact in 32 bits.
func wholeNumbers(_ count: Int, seed: UInt64) -> [Float] {
  var generator = SplitMix64(seed: seed)
  return (0..<count).map { _ in Float(Int.random(in: -4...4, using: &generator)) }
}
