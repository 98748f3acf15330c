package import Bytes
import Safetensors
package import Tensors

/// Orders steps for the loader and cuts them into shards.
///
/// Layers stay together and in numeric order. Inside a layer quantized weights come first. A tensor
/// whose size is no multiple of 64 bytes goes to the end of its shard, widest elements first, so that
/// every other tensor starts at a multiple of 64 and these are aligned to their elements.
package struct StepLayout {
  package let maxShardBytes: Int
  /// A header grows with the number of tensors; no shard may get more than this many.
  package var maxTensorsPerShard = 50_000
  /// Copies that stand right behind that of a tensor, in the same shard, by its position in the source: those of the
  /// statistics of a weight that is in 4 bits already.
  package var followers: [Int: [Step]] = [:]

  /// The metadata of every file.
  package var metadata: [(key: String, value: String)] = [("format", "pt")]

  package init(
    maxShardBytes: Int, maxTensorsPerShard: Int = 50_000, followers: [Int: [Step]] = [:],
    metadata: [(key: String, value: String)] = [("format", "pt")]
  ) {
    self.maxShardBytes = maxShardBytes
    self.maxTensorsPerShard = maxTensorsPerShard
    self.followers = followers
    self.metadata = metadata
  }

  /// - Throws: what `TensorEncoder.outputs` throws.
  package func plan(
    _ steps: [Step], _ encoders: [any TensorEncoder], source: any TensorSource, stored: any TensorSource
  ) throws(Failure) -> WritePlan {
    let draft = WritePlan(
      source: source, stored: stored, encoders: encoders, steps: steps, container: SafetensorsContainer(files: []))
    var ordered: [Step] = []
    ordered.reserveCapacity(steps.count)
    var packer = ShardPacker(limit: ShardPacker.Size(bytes: maxShardBytes, tensors: maxTensorsPerShard))
    var shards: [ContainerFile] = []
    var current: [Step] = []
    var bytes = 0

    func close() throws(Failure) {
      let start = ordered.count
      for step in try aligned(current, draft) { ordered += group(step) }
      shards.append(ContainerFile(name: "", steps: start..<ordered.count, dataByteCount: bytes))
      current = []
      bytes = 0
    }

    for layer in layers(steps, draft) {
      var sizes: [ShardPacker.Size] = []
      for step in layer {
        var size = ShardPacker.Size(bytes: 0, tensors: 0)
        for member in group(step) {
          let outputs = try draft.outputs(of: member)
          size.bytes += outputs.reduce(0) { $0 + $1.byteCount }
          size.tensors += outputs.count
        }
        sizes.append(size)
      }
      let begins = try packer.add(sizes)
      for (position, step) in layer.enumerated() {
        if begins[position] { try close() }
        current.append(step)
        bytes += sizes[position].bytes
      }
    }
    try close()
    try checkTotals(ordered, shards, source)
    for index in shards.indices { shards[index].name = ShardLayout.shardName(index, of: shards.count) }
    return WritePlan(
      source: source, stored: stored, encoders: encoders, steps: ordered,
      container: SafetensorsContainer(files: shards, metadata: metadata))
  }

  private func group(_ step: Step) -> [Step] { [step] + (followers[step.tensor] ?? []) }

  /// Everything that adds these up later may do so without a check.
  private func checkTotals(_ steps: [Step], _ shards: [ContainerFile], _ source: any TensorSource) throws(Failure) {
    var total = 0
    let sizes = shards.map(\.dataByteCount) + steps.map { source.tensors[$0.tensor].byteCount }
    for size in sizes {
      let (next, overflowed) = total.addingReportingOverflow(size)
      if overflowed { throw Failure(.malformed, "the tensors together exceed 2^63 bytes") }
      total = next
    }
  }

  /// Steps by layer, in order of first appearance, numbered layers of one stack in numeric order.
  private func layers(_ steps: [Step], _ draft: WritePlan) -> [[Step]] {
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
      func isQuantized(_ step: Step) -> Bool { !draft.encoder(of: step).keepsBytes || followers[step.tensor] != nil }
      return group.filter(isQuantized) + group.filter { !isQuantized($0) }
    }
  }

  /// `model.layers.12.mlp.up_proj.weight` is layer 12 of `model.layers`; a name without a number is
  /// a layer of its own.
  package static func layer(of name: TensorName) -> (stack: TensorName, number: Int) {
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

  private func aligned(_ steps: [Step], _ draft: WritePlan) throws(Failure) -> [Step] {
    var whole: [Step] = []
    var odd: [(step: Step, width: Int)] = []
    for step in steps {
      var (bytes, width) = (0, 1)
      for (position, member) in group(step).enumerated() {
        let outputs = try draft.outputs(of: member)
        if position == 0, case .element(let type)? = outputs.first?.type { width = type.alignment }
        bytes = outputs.reduce(bytes) { $0.addingSaturated($1.byteCount) }
      }
      if bytes % FourBitScheme.alignment == 0 { whole.append(step) } else { odd.append((step, width)) }
    }
    for width in [8, 4, 2, 1] { whole += odd.filter { $0.width == width }.map(\.step) }
    return whole
  }
}
