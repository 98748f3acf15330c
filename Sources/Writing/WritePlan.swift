package import Bytes
package import Checkpoints
package import Tensors

/// The treatment of one tensor of the prepared source.
package struct Step: Sendable {
  /// Position in the prepared source's `tensors`.
  package var tensor: Int
  /// Position in the plan's `encoders`.
  package var encoder: Int
  package var origin: StoredOrigin

  package init(tensor: Int, encoder: Int, origin: StoredOrigin) {
    self.tensor = tensor
    self.encoder = encoder
    self.origin = origin
  }
}

/// Everything about an output that can be known without reading data: every name, type, shape, size and place.
package struct WritePlan: Sendable {
  /// Where the values come from.
  package let source: any TensorSource
  /// The checkpoint on disk; `StoredOrigin` counts in its `tensors`. No tensors when the manifest tells of no source.
  package let stored: any TensorSource
  package let encoders: [any TensorEncoder]
  /// The steps in the order of the output.
  package let steps: [Step]
  package let container: any Container
  /// Bytes of outputs whose sizes were bounds before they were written, by position in the source's `tensors`.
  var settledSizes: [Int: Int] = [:]
  /// Bytes kept for the headers of files that have such outputs, by position in the container's `files`.
  var keptHeaders: [Int: Int] = [:]

  package init(
    source: any TensorSource, stored: any TensorSource, encoders: [any TensorEncoder], steps: [Step],
    container: any Container
  ) {
    self.source = source
    self.stored = stored
    self.encoders = encoders
    self.steps = steps
    self.container = container
  }

  package func info(of step: Step) -> TensorInfo { source.tensors[step.tensor] }

  package func encoder(of step: Step) -> any TensorEncoder { encoders[step.encoder] }

  /// The tensors that a step writes, in file order.
  package func outputs(of step: Step) throws(Failure) -> [StoredTensor] {
    var outputs = try encoder(of: step).outputs(for: info(of: step))
    if let size = settledSizes[step.tensor], let first = outputs.first { outputs[0] = try first.settled(size) }
    return outputs
  }

  /// Everything of a file that stands before its data.
  package func header(of file: Int) throws(Failure) -> [UInt8] {
    let planned = container.files[file]
    do throws(Failure) {
      return try container.header(of: file, room: keptHeaders[file]) { () throws(Failure) in
        var tensors: [StoredTensor] = []
        for step in steps[planned.steps] { tensors += try outputs(of: step) }
        return tensors
      }
    } catch { throw error.located(file: planned.name) }
  }

  /// Bytes of all files, headers and padding included.
  func fileByteCount() throws(Failure) -> Int {
    var total = 0
    for file in container.files.indices {
      total = total.addingSaturated(try header(of: file).count).addingSaturated(try dataByteCount(of: file))
    }
    return total
  }

  /// Bytes of the tensors alone, before any is written: as many as there can be.
  var plannedByteCount: Int { container.files.reduce(0) { $0.addingSaturated($1.dataByteCount) } }

  /// Bytes of the tensors alone.
  func dataByteCount() throws(Failure) -> Int {
    var total = 0
    for file in container.files.indices { total = total.addingSaturated(try dataByteCount(of: file)) }
    return total
  }

  private func dataByteCount(of file: Int) throws(Failure) -> Int {
    let planned = container.files[file]
    guard keptHeaders[file] != nil else { return planned.dataByteCount }
    var total = 0
    for step in steps[planned.steps] {
      for output in try outputs(of: step) {
        total = total.addingSaturated(output.byteCount.aligned(upTo: container.alignment))
      }
    }
    return total
  }

  /// Stored tensors, and a bound of what the manifest and an index say of them.
  package func entries() throws(Failure) -> (count: Int, byteCount: Int) {
    var (count, bytes) = (0, 0)
    for step in steps {
      for output in try outputs(of: step) {
        count += 1
        bytes = bytes.addingSaturated(400 + 2 * output.name.byteCount)
        guard let layout = PieceLayout(byteCount: output.byteCount) else { continue }
        bytes = bytes.addingSaturated(16 * layout.count + 64)
      }
    }
    return (count, bytes)
  }

  /// The number of values that are written: adapters may bring more than the source has.
  package var parameterCount: Int { steps.reduce(0) { $0.addingSaturated(info(of: $1).elementCount) } }

  // MARK: - The input

  /// Bytes read from files, all told.
  package var inputByteCount: Int { steps.reduce(0) { $0.addingSaturated(inputByteCount(of: $1)) } }

  private func inputByteCount(of step: Step) -> Int {
    encoder(of: step).storedByteCount(of: info(of: step)) ?? source.storedByteCount(of: step.tensor)
  }

  /// Bytes read from files for a piece; those of all pieces add up to the whole.
  package func inputByteCount(of piece: Piece) -> Int {
    inputByteCount(of: piece.work.step).part(piece.range, of: piece.work.info.byteCount)
  }
}

extension WritePlan: ManifestTensors {
  package func forEach(
    _ body: (_ name: TensorName, _ file: String, _ offset: Int, _ byteCount: Int) throws(Failure) -> Void
  ) throws(Failure) {
    for (index, file) in container.files.enumerated() {
      var offset = try header(of: index).count
      for step in steps[file.steps] {
        for output in try outputs(of: step) {
          try body(output.name, file.name, offset, output.byteCount)
          offset = (offset + output.byteCount).aligned(upTo: container.alignment)
        }
      }
    }
  }
}

/// A source without tensors: the manifest has a place for one source only.
struct NoTensors: TensorSource {
  let tensors: [TensorInfo] = []

  func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    throw Failure(.internal, "no tensor \(index)")
  }
}

extension Int {
  package func aligned(upTo alignment: Int) -> Int { (self + alignment - 1) / alignment * alignment }
}
