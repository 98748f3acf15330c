import Bytes
import Checkpoints
import Console
import PackedWeights
import Quantization
import Tensors
import Writing

/// Makes a checkpoint's tensors again from those it came from, and compares.
struct SourceCheck {
  let logical: LogicalTensors
  let files: CheckpointFiles
  /// The source as the user named it, for messages.
  let against: String
  let jobs: Int
  let style: Progress.Style

  func run(_ result: inout Verify.Result) throws(Failure) {
    let original = try OriginalModel(files)
    let source = original.values
    var positions: [TensorName: Int] = [:]
    for (index, tensor) in source.tensors.enumerated() { positions[tensor.name] = index }
    let total = logical.items.reduce(0) { $0 + logical.info($1).byteCount }
    let progress = Progress("comparing", total: total, style: style)
    defer { progress.finish() }
    var searched = 0
    for item in logical.items {
      let info = logical.info(item)
      guard let index = positions.removeValue(forKey: info.name) else {
        result.add(tensor: info.name, "is not in \(against)")
        continue
      }
      do throws(Failure) {
        switch item {
        case .packed(let packed):
          guard let weight = packed as? FourBitWeight else {
            result.notChecked.append("'\(info.name)' against \(against): \(packed.scheme)")
            continue
          }
          // The mean of largest magnitudes is not 0: these scales were searched, and no manifest tells how.
          if weight.state.nestedOffset == 0, try !isZero(weight) {
            searched += 1
            continue
          }
          var matched = try original.oriented(index, as: info.shape)
          if source.tensors[index].type == .f64 { matched = try ConvertedSource(matched, [index: .f32]) }
          try compare(weight, with: matched, index, progress, &result)
        case .plain(let stored): try compare(stored, with: source, index, progress, &result)
        }
      } catch {
        if error.code != .malformed { throw error }
        result.add(error.located(tensor: info.name.string))
      }
    }
    if searched > 0 {
      result.notChecked.append(
        "\(counted(searched, "weight")) against \(against): the scales were searched, and its own manifest does not say how"
      )
    }
    for missing in positions.keys.sorted() { result.add(tensor: missing, "is in \(against) only") }
  }

  // MARK: - 4-bit weights

  private func isZero(_ weight: FourBitWeight) throws(Failure) -> Bool {
    guard let nested = weight.nestedAbsmax else { return true }
    return try logical.checkpoint.bytes(of: nested).allSatisfy { $0 == 0 }
  }

  private func compare(
    _ weight: FourBitWeight, with source: any TensorSource, _ index: Int, _ progress: Progress,
    _ result: inout Verify.Result
  ) throws(Failure) {
    let info = source.tensors[index]
    guard let type = FloatType(info.type) else {
      throw Failure(.malformed, "is \(info.type.name) in \(against), which cannot be quantized")
    }
    if type != weight.state.type {
      result.add(
        tensor: info.name,
        "the quant_state's dtype is \(weight.state.type.torchName), in \(against) it is \(type.torchName)")
    }
    let scheme = FourBitScheme(
      format: weight.format, usesDoubleQuantization: weight.state.nestedOffset != nil, storage: .u8)
    let work = TensorWork(
      Step(tensor: index, encoder: 0, origin: .derived([])), at: 0, info, FourBitEncoder(scheme: scheme))
    let checkpoint = logical.checkpoint
    var differing = 0
    let stream = OrderedStream<PieceCuts, PieceBuffer>(jobs: jobs) { PieceBuffer() }
    try stream.run(PieceCuts(work: work)) { piece, buffer throws(Failure) in
      try buffer.fill(piece, from: source)
    } drain: { piece, buffer throws(Failure) in
      let start = piece.elements.lowerBound / 2
      let count = buffer.output.byteCount
      let stored = try ScratchBuffer(checkpoint, weight.codes, at: start, count: count)
      differing += stored.bytes.differingByteCount(from: buffer.output)
      result.bytesChecked += count
      progress.advance(by: piece.range.count)
    }
    if differing > 0 {
      result.add(
        tensor: info.name,
        "\(differing == 1 ? "1 byte of codes is not that" : "\(differing) bytes of codes are not those") of the weights in \(against)"
      )
    }
    if let problem = try compareStatistics(weight, work) { result.add(tensor: info.name, problem) }
  }

  private func compareStatistics(_ weight: FourBitWeight, _ work: TensorWork) throws(Failure) -> String? {
    let checkpoint = logical.checkpoint
    guard let maxima = work.state as? BlockMaxima else { throw Failure(.internal, "no block maxima") }
    let memory = maxima.values
    let absmax = memory.floats
    let stored = try ScratchBuffer(
      checkpoint, weight.absmax, at: 0, count: checkpoint.tensors[weight.absmax].byteCount)
    guard let offset = weight.state.nestedOffset, let nestedAbsmax = weight.nestedAbsmax else {
      let isEqual = stored.bytes.hasSameBytes(as: absmax.rawBytes)
      return isEqual ? nil : "absmax is not that of the weights in \(against)"
    }
    // torch's order of summation is not defined, so its mean may be a few units in the last place away.
    let own = DoubleQuantization.offset(absmax)
    if abs(own - offset) > 4 * own.ulp { return "nested_offset is \(offset), the mean of absmax is \(own)" }
    let nested = NestedAbsmax(absmax, offset: offset)
    let storedNested = try ScratchBuffer(
      checkpoint, nestedAbsmax, at: 0, count: checkpoint.tensors[nestedAbsmax].byteCount)
    guard stored.bytes.hasSameBytes(as: nested.codes.span.rawBytes),
      storedNested.bytes.hasSameBytes(as: nested.absmax.span.rawBytes)
    else { return "absmax or nested_absmax is not that of the weights in \(against)" }
    return nil
  }

  /// One tensor cut into pieces.
  private struct PieceCuts: PieceCursor {
    let work: TensorWork
    var position = 0
    var isDone = false

    init(work: TensorWork) { self.work = work }

    mutating func next() -> Piece? {
      if isDone { return nil }
      let end = min(position + work.pieceByteCount, work.info.byteCount)
      defer { position = end }
      isDone = end == work.info.byteCount
      return Piece(work: work, range: position..<end)
    }
  }

  // MARK: - Other tensors

  private func compare(
    _ stored: Int, with source: DequantizedSource, _ index: Int, _ progress: Progress, _ result: inout Verify.Result
  ) throws(Failure) {
    let info = logical.checkpoint.tensors[stored]
    let original = source.tensors[index]
    guard info.shape == original.shape else {
      throw Failure(.malformed, "has shape \(info.shape), in \(against) it is \(original.shape)")
    }
    var expected: any TensorSource = source
    if info.type != original.type {
      guard let target = FloatType(info.type), original.type.isFloat else {
        throw Failure(.malformed, "is \(info.type.name), in \(against) it is \(original.type.name)")
      }
      expected = try ConvertedSource(source, [index: target])
    }
    var differing = 0
    var position = 0
    try logical.checkpoint.forEachPiece(of: stored) { bytes throws(Failure) in
      try Interruption.check()
      let other = try ScratchBuffer(expected, index, at: position, count: bytes.byteCount)
      differing += bytes.differingByteCount(from: other.bytes)
      position += bytes.byteCount
      progress.advance(by: bytes.byteCount)
    }
    result.bytesChecked += position
    if differing > 0 {
      result.add(
        file: logical.checkpoint.location(of: stored).file, tensor: info.name,
        differing == 1 ? "1 byte is not that of \(against)" : "\(differing) bytes are not those of \(against)")
    }
  }
}
