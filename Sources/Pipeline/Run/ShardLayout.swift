import Bytes
import Tensors

/// Orders steps for the loader and cuts them into shards.
///
/// Layers stay together and in numeric order. Inside a layer quantized weights come first. A tensor
/// whose size is no multiple of 64 bytes goes to the end of its shard, widest elements first, so that
/// every other tensor starts at a multiple of 64 and these are aligned to their elements.
struct ShardLayout {
  let maxShardBytes: Int
  /// A header grows with the number of tensors; no shard may get more than this many.
  static let maxTensorsPerShard = 50_000

  private struct Layer {
    var steps: [Step] = []
    var bytes = 0
    var tensors = 0
  }

  /// - Throws: what `OutputPlan.outputs` throws.
  func plan(
    _ steps: [Step], source: any TensorSource, stored: any TensorSource, scheme: FourBitScheme?
  ) throws(Failure) -> OutputPlan {
    let draft = OutputPlan(source: source, stored: stored, scheme: scheme, steps: steps, shards: [])
    var ordered: [Step] = []
    ordered.reserveCapacity(steps.count)
    var shards: [(steps: Range<Int>, bytes: Int)] = []
    var current: [Step] = []
    var bytes = 0
    var tensors = 0

    func close() {
      if current.isEmpty { return }
      let start = ordered.count
      ordered += aligned(current, draft)
      shards.append((start..<ordered.count, bytes))
      current = []
      bytes = 0
      tensors = 0
    }

    func add(_ step: Step, _ stepBytes: Int, _ stepTensors: Int) throws(Failure) {
      let (sum, overflow) = bytes.addingReportingOverflow(stepBytes)
      if overflow { throw Failure(.malformed, "the tensors together exceed 2^63 bytes") }
      current.append(step)
      bytes = sum
      tensors += stepTensors
    }

    for layer in layers(steps, draft) {
      var sizes: [(bytes: Int, tensors: Int)] = []
      var layerBytes = 0
      var layerTensors = 0
      for step in layer {
        let outputs = try draft.outputs(of: step)
        let size = outputs.reduce(0) { $0 + $1.byteCount }
        sizes.append((size, outputs.count))
        layerBytes = layerBytes.addingReportingOverflow(size).partialValue
        layerTensors += outputs.count
      }
      func exceeds(_ moreBytes: Int, _ moreTensors: Int) -> Bool {
        bytes > maxShardBytes - min(moreBytes, maxShardBytes) && bytes > 0
          || moreBytes > maxShardBytes && bytes > 0
          || tensors + moreTensors > Self.maxTensorsPerShard && tensors > 0
      }
      if exceeds(layerBytes, layerTensors) { close() }
      for (step, size) in zip(layer, sizes) {
        if exceeds(size.bytes, size.tensors) { close() }
        try add(step, size.bytes, size.tensors)
      }
    }
    close()
    // A checkpoint without tensors is a file without tensors.
    if shards.isEmpty { shards.append((0..<0, 0)) }
    return OutputPlan(
      source: source, stored: stored, scheme: scheme, steps: ordered,
      shards: shards.enumerated().map { index, shard in
        OutputPlan.Shard(
          name: Self.name(index, of: shards.count), steps: shard.steps, dataByteCount: shard.bytes)
      })
  }

  static func name(_ index: Int, of count: Int) -> String {
    if count == 1 { return "model.safetensors" }
    func digits(_ number: Int) -> String {
      let text = String(number)
      return String(repeating: "0", count: max(0, 5 - text.count)) + text
    }
    return "model-\(digits(index + 1))-of-\(digits(count)).safetensors"
  }

  /// Steps by layer, in order of first appearance, numbered layers of one stack in numeric order.
  private func layers(_ steps: [Step], _ draft: OutputPlan) -> [[Step]] {
    struct Key: Hashable {
      var stack: TensorName
      var number: Int
    }
    var stackOrder: [TensorName: Int] = [:]
    var groups: [Key: [Step]] = [:]
    var keys: [(stack: Int, number: Int, key: Key)] = []
    for step in steps {
      let (stack, number) = Self.layer(of: draft.info(of: step).name)
      let key = Key(stack: stack, number: number)
      if groups[key] == nil {
        let order = stackOrder[stack] ?? stackOrder.count
        stackOrder[stack] = order
        keys.append((order, number, key))
      }
      groups[key, default: []].append(step)
    }
    keys.sort { ($0.stack, $0.number) < ($1.stack, $1.number) }
    return keys.map { entry in
      let group = groups[entry.key] ?? []
      return group.filter { $0.action != .copy } + group.filter { $0.action == .copy }
    }
  }

  /// `model.layers.12.mlp.up_proj.weight` is layer 12 of `model.layers`; a name without a number is
  /// a layer of its own.
  static func layer(of name: TensorName) -> (stack: TensorName, number: Int) {
    let parts = name.string.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
    var length = 0
    for part in parts {
      if let number = Int(String(Substring(part))), number >= 0, length > 0 {
        let stack = name.string.utf8.prefix(length - 1)
        return (TensorName(String(Substring(stack))), number)
      }
      length += part.count + 1
    }
    return (name, -1)
  }

  private func aligned(_ steps: [Step], _ draft: OutputPlan) -> [Step] {
    func isOdd(_ step: Step) -> Bool {
      step.action == .copy && draft.info(of: step).byteCount % FourBitScheme.alignment != 0
    }
    let odd = steps.filter(isOdd)
    if odd.isEmpty { return steps }
    var result = steps.filter { !isOdd($0) }
    for width in [8, 4, 2, 1] {
      result += odd.filter { draft.info(of: $0).type.alignment == width }
    }
    return result
  }
}
