import Bytes
import Quantization
import Safetensors
import Tensors

/// What is done with one tensor of the prepared source.
struct Step: Sendable {
  enum Action: Sendable, Equatable {
    /// The bytes as they are.
    case copy
    /// Several tensors take its place. The type is that of the values.
    case quantize(FloatType)
  }

  /// Which stored tensors the bytes come from, for the digests of the source.
  enum Origin: Sendable, Equatable {
    /// What is read is what is stored, byte for byte.
    case stored(Int)
    /// Computed piece by piece from this one, whose bytes the source hands on as it reads them.
    case traced(Int)
    /// Computed from these.
    case derived([Int])

    /// The one stored tensor that the bytes are, or are computed from as they are read.
    var single: Int? {
      switch self {
      case .stored(let index), .traced(let index): index
      case .derived: nil
      }
    }
  }

  /// Position in the prepared source's `tensors`.
  var tensor: Int
  var action: Action
  var origin: Origin
  /// Values that are copied are looked at too: NaN or infinity in a weight means a broken checkpoint.
  var mustBeFinite = false
}

/// Everything about the output that can be known without reading data: every name, shape, size and
/// place.
struct OutputPlan: Sendable {
  /// Where the values come from.
  let source: any TensorSource
  /// What is on disk; `Origin` counts in its `tensors`.
  let stored: any TensorSource
  let scheme: FourBitScheme?
  /// In the order of the output.
  let steps: [Step]
  /// Consecutive ranges of `steps`; one file each.
  let shards: [Shard]
  /// Of every file.
  var metadata: [(key: String, value: String)] = [("format", "pt")]

  struct Shard: Sendable {
    var name: String
    var steps: Range<Int>
    var dataByteCount: Int
  }

  func info(of step: Step) -> TensorInfo { source.tensors[step.tensor] }

  /// The tensors that a step writes, in file order.
  func outputs(of step: Step) throws(Failure) -> [TensorInfo] {
    let info = info(of: step)
    switch step.action {
    case .copy: return [info]
    case .quantize(let type):
      guard let scheme else { throw Failure(.internal, "a quantizing step without a scheme") }
      return try scheme.outputs(for: info, type: type)
    }
  }

  /// Of the tensor that a step writes piece by piece, before what belongs to it.
  func firstOutputByteCount(of step: Step) throws(Failure) -> Int {
    let info = info(of: step)
    guard case .quantize = step.action else { return info.byteCount }
    guard let scheme else { throw Failure(.internal, "a quantizing step without a scheme") }
    return scheme.format.packedByteCount(info.elementCount)
  }

  /// All tensors of one shard, in file order.
  func outputs(of shard: Shard) throws(Failure) -> [TensorInfo] {
    var result: [TensorInfo] = []
    for step in steps[shard.steps] { result += try outputs(of: step) }
    return result
  }

  /// Everything of a shard's file that stands before its data.
  func header(of shard: Shard) throws(Failure) -> [UInt8] {
    do throws(Failure) {
      return try SafetensorsHeader.encode(outputs(of: shard), metadata: metadata)
    } catch { throw error.located(file: shard.name) }
  }

  /// What the digests of pieces take in the manifest.
  func pieceDigestByteCount() throws(Failure) -> Int {
    var total = 0
    for step in steps {
      for output in try outputs(of: step) {
        guard let layout = PieceLayout(byteCount: output.byteCount) else { continue }
        total += 16 * layout.count + 64
      }
    }
    return total
  }

  var dataByteCount: Int { shards.reduce(0) { $0 + $1.dataByteCount } }

  /// Bytes read from files, all told.
  var inputByteCount: Int { steps.reduce(0) { $0.addingSaturated(source.storedByteCount(of: $1.tensor)) } }

  /// What is read from files for some bytes of a step's values; those of all its pieces add up to the whole.
  func inputByteCount(of range: Range<Int>, _ step: Step) -> Int {
    source.storedByteCount(of: step.tensor).part(range, of: info(of: step).byteCount)
  }
}

extension OutputPlan: ManifestTensors {
  func forEach(
    _ body: (_ name: TensorName, _ file: String, _ offset: Int, _ byteCount: Int) throws(Failure) -> Void
  ) throws(Failure) {
    for shard in shards {
      var offset = try header(of: shard).count
      for step in steps[shard.steps] {
        for output in try outputs(of: step) {
          try body(output.name, shard.name, offset, output.byteCount)
          offset += output.byteCount
        }
      }
    }
  }
}
