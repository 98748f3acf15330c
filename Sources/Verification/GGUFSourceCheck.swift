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
  /// How the model was quantized, with the files of measured inputs; nil where no manifest tells.
  let recorded: QuantizeToGGUF?
  /// The source as the user named it, for messages.
  let against: String
  let jobs: Int
  let style: Progress.Style

  func run(_ result: inout Verify.Result) throws(Failure) {
    let stored = values.checkpoint
    for (key, measured, text) in [
      (GGUFMetadata.importanceFileKey, recorded?.importance, "an importance matrix shaped the blocks"),
      (GGUFMetadata.feedbackFileKey, recorded?.feedback, "what columns lost was made good in others"),
    ] where measured == nil && stored.metadata[key] != nil {
      result.notChecked.append("the comparison with \(against): \(text)")
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
    try compare(input, order: order, own, &result)
  }

  private func compare(
    _ input: GGUFContents, order: [Int], _ own: [Int], _ result: inout Verify.Result
  ) throws(Failure) {
    let stored = values.checkpoint
    let measured = try recorded?.measured(of: input) ?? GGUFMeasurements()
    let types = own.map { stored.tensors[$0].type }
    let weights = try measured.importance(
      of: own.indices.filter { types[$0].isQuantized }.map { ($0, input.tensors[order[$0]]) })
    let plan = try WritePlan(
      gguf: "again.gguf", source: SortedSource(input.source, order: order), types: types,
      origins: order.map { $0 < input.origins.count ? input.origins[$0] : nil }, stored: input.stored,
      importance: weights ?? [:], feedback: measured.feedback, metadata: GGUFMetadata(), maxShardBytes: .max)
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
