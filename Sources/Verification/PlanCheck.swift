import Bytes
import Checkpoints
import Console
import Tensors
import Writing

/// Makes the tensors of a plan again, without writing them, and compares them with those of a checkpoint.
struct PlanCheck {
  let plan: WritePlan
  let checkpoint: any StoredCheckpoint
  /// The name of what the plan was made from, for messages.
  let against: String
  let jobs: Int
  let style: Progress.Style

  func run(_ result: inout Verify.Result) throws(Failure) {
    let progress = Progress("comparing", total: plan.inputByteCount, style: style)
    defer { progress.finish() }
    var left = Set(checkpoint.tensors.map(\.name))
    var problems: [(name: TensorName, problem: String)] = []
    var comparison = Comparison(checkpoint: checkpoint)
    let plan = plan
    let stream = OrderedStream<PlanCursor, PieceBuffer>(jobs: jobs) { PieceBuffer() }
    try stream.run(PlanCursor(plan)) { piece, buffer throws(Failure) in
      try buffer.fill(piece, from: plan.source)
    } drain: { piece, buffer throws(Failure) in
      let outputs = try plan.outputs(of: piece.work.step)
      if piece.isFirst { comparison.begin(outputs[0]) }
      try comparison.add(buffer.output)
      progress.advance(by: plan.inputByteCount(of: piece))
      guard piece.isLast else { return }
      var position = 0
      func end() {
        left.remove(outputs[position].name)
        if let problem = comparison.end(against) { problems.append((outputs[position].name, problem)) }
        position += 1
      }
      end()
      try piece.work.encoder.finish(piece.work) { bytes throws(Failure) in
        comparison.begin(outputs[position])
        try comparison.add(bytes)
        end()
      }
    }
    result.bytesChecked += comparison.byteCount
    for (name, problem) in problems {
      result.add(file: checkpoint.index(of: name).map { checkpoint.location(of: $0).file }, tensor: name, problem)
    }
    for name in left.sorted() { result.add(tensor: name, "is nothing that \(against) gives") }
  }

  /// One tensor after the other.
  private struct Comparison {
    let checkpoint: any StoredCheckpoint
    private(set) var byteCount = 0
    /// nil for one that is not there, or is not what it should be.
    private var index: Int?
    private var problem: String?
    private var position = 0
    private var differing = 0

    init(checkpoint: any StoredCheckpoint) { self.checkpoint = checkpoint }

    mutating func begin(_ tensor: StoredTensor) {
      (index, problem, position, differing) = (checkpoint.index(of: tensor.name), nil, 0, 0)
      guard let found = index else {
        problem = "is missing"
        return
      }
      let info = checkpoint.tensors[found]
      if StoredTensor(info).type == tensor.type, info.shape == tensor.shape { return }
      index = nil
      problem = "is \(info.type.name) of shape \(info.shape), needed is shape \(tensor.shape)"
      if case .element(let type) = tensor.type { problem = "\(problem ?? "") of \(type.name)" }
    }

    mutating func add(_ bytes: RawSpan) throws(Failure) {
      guard let index, !bytes.isEmpty else { return }
      let stored = try ScratchBuffer(checkpoint, index, at: position, count: bytes.byteCount)
      differing += stored.bytes.differingByteCount(from: bytes)
      position += bytes.byteCount
      byteCount += bytes.byteCount
    }

    func end(_ against: String) -> String? {
      if differing == 0 { return problem }
      return differing == 1 ? "1 byte is not that of \(against)" : "\(differing) bytes are not those of \(against)"
    }
  }
}
