import Bytes
import Checkpoints
import Commands
import Console
import GGUF
import Tensors
import TypeMixtures
import Writing

/// Makes a GGUF model's tensors again from those they came from, each in the type that it has, and compares.
struct GGUFSourceCheck {
  let values: StoredGGUF
  let files: CheckpointFiles
  /// The source as the user named it, for messages.
  let against: String
  let jobs: Int
  let style: Progress.Style

  func run(_ result: inout Verify.Result) throws(Failure) {
    let stored = values.checkpoint
    if stored.metadata[GGUFMetadata.importanceFileKey] != nil {
      result.notChecked.append("the comparison with \(against): an importance matrix shaped the blocks")
      return
    }
    let input = try GGUFContents(files, isExact: true)
    var positions: [TensorName: Int] = [:]
    for (index, tensor) in input.source.tensors.enumerated() { positions[tensor.name] = index }
    var order: [Int] = []
    var own: [Int] = []
    for (index, tensor) in stored.tensors.enumerated() {
      guard let position = positions.removeValue(forKey: tensor.name) else {
        result.add(tensor: tensor.name, "is not in \(against)")
        continue
      }
      let other = input.source.tensors[position]
      guard other.shape == tensor.shape else {
        result.add(tensor: tensor.name, "has shape \(tensor.shape), in \(against) it is \(other.shape)")
        continue
      }
      order.append(position)
      own.append(index)
    }
    for missing in positions.keys.sorted() { result.add(tensor: missing, "is in \(against) only") }
    try compare(SortedSource(input.source, order: order), own, &result)
  }

  private func compare(_ source: SortedSource, _ own: [Int], _ result: inout Verify.Result) throws(Failure) {
    let stored = values.checkpoint
    let plan = try WritePlan(
      gguf: "again.gguf", source: source, types: own.map { stored.tensors[$0].type }, origins: [], stored: nil,
      metadata: GGUFMetadata(), maxShardBytes: .max)
    let progress = Progress("comparing", total: plan.inputByteCount, style: style)
    defer { progress.finish() }
    var differing = [Int](repeating: 0, count: own.count)
    let stream = OrderedStream<PlanCursor, PieceBuffer>(jobs: jobs) { PieceBuffer() }
    try stream.run(PlanCursor(plan)) { piece, buffer throws(Failure) in
      try buffer.fill(piece, from: plan.source)
    } drain: { piece, buffer throws(Failure) in
      let tensor = piece.work.step.tensor
      let type = stored.tensors[own[tensor]].type
      let start = piece.elements.lowerBound / type.valuesPerBlock * type.bytesPerBlock
      var found = ScratchBuffer(byteCount: buffer.output.byteCount)
      var room = found.mutableBytes
      try stored.read(own[tensor], at: start, into: &room)
      differing[tensor] += found.bytes.differingByteCount(from: buffer.output)
      progress.advance(by: plan.inputByteCount(of: piece))
    }
    for (position, count) in differing.enumerated() where count > 0 {
      result.add(
        tensor: stored.tensors[own[position]].name,
        "\(count == 1 ? "1 byte is not the one that" : "\(count) bytes are not those that") \(stored.tensors[own[position]].type.name.uppercased()) of \(against) has"
      )
    }
  }
}
