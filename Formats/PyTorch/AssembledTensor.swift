package import Bytes
package import Tensors

/// A tensor that lies in parts, each a view in a file of its own: the shards of processes that trained it together.
package struct AssembledTensor: Sendable {
  /// A part: a box of the whole.
  package struct Part: Sendable {
    /// Position among the checkpoint's files.
    package let file: Int
    package let view: PyTorchTensor
    /// The element of the view that is the box's first; the others follow it in the order of rows.
    package let first: Int
    /// Where the box begins in the whole, for each dimension.
    package let offsets: [Int]
    package let sizes: [Int]
    /// Bytes of the file that are the archive with the view in it, compressed; the view is then one of the part alone.
    let compressed: Range<Int>?

    package init(
      file: Int, view: PyTorchTensor, first: Int = 0, offsets: [Int], sizes: [Int], compressed: Range<Int>? = nil
    ) {
      self.compressed = compressed
      self.file = file
      self.view = view
      self.first = first
      self.offsets = offsets
      self.sizes = sizes
    }

    var elementCount: Int { sizes.reduce(1, *) }
  }

  package let info: TensorInfo
  /// The whole's shape as the boxes count in it: its own, or one dimension of all elements.
  let grid: [Int]
  package let parts: [Part]
  private let width: Int

  /// - Parameter grid: of as many elements as the tensor has.
  /// - Throws: `malformed` when the parts are not the whole: one reaches outside, two overlap, or elements are missing.
  package init(_ info: TensorInfo, grid: [Int]? = nil, parts: [Part]) throws(Failure) {
    let grid = grid ?? info.shape
    guard info.type.bitWidth % 8 == 0 else {
      throw Failure(.unsupported, "is \(info.type.name) and lies in parts, which is not read", tensor: info.name.string)
    }
    self.info = info
    self.grid = grid
    self.parts = parts.filter { !$0.sizes.contains(0) }
    width = info.type.bitWidth / 8
    do throws(Failure) { try check() } catch { throw error.located(tensor: info.name.string) }
  }

  private func check() throws(Failure) {
    var count = 0
    for part in parts {
      guard part.offsets.count == grid.count, part.sizes.count == grid.count, part.first >= 0,
        zip(grid, zip(part.offsets, part.sizes)).allSatisfy({ $1.0 >= 0 && $1.1 >= 0 && $1.0 <= $0 - $1.1 })
      else {
        throw Failure(.malformed, "has a part of shape \(part.sizes) at \(part.offsets), it has shape \(grid) itself")
      }
      guard part.view.info.type == info.type else {
        throw Failure(.malformed, "is \(info.type.name), a part of it is \(part.view.info.type.name)")
      }
      guard part.elementCount <= part.view.info.elementCount - part.first else {
        throw Failure(
          .malformed,
          "needs \(part.elementCount) elements of a part that has \(part.view.info.elementCount - part.first)")
      }
      count = count.addingSaturated(part.elementCount)
    }
    guard count == info.elementCount else {
      throw Failure(
        .malformed,
        "has \(counted(count, "element")) in its \(counted(parts.count, "part")), its shape \(info.shape) has "
          + "\(info.elementCount)")
    }
    if let (one, other) = overlapping() {
      throw Failure(.malformed, "has parts at \(parts[one].offsets) and \(parts[other].offsets) that overlap")
    }
  }

  /// Two parts with an element in common.
  private func overlapping() -> (Int, Int)? {
    // As a rule one dimension is cut: a part touches few others, those that begin before it ends.
    let order = parts.indices.sorted { parts[$0].offsets.lexicographicallyPrecedes(parts[$1].offsets) }
    for (place, one) in order.enumerated() {
      for other in order[(place + 1)...] {
        let (a, b) = (parts[one], parts[other])
        guard let first = a.offsets.first, let next = b.offsets.first, let size = a.sizes.first, next < first + size
        else { break }
        let axes = grid.indices
        if axes.allSatisfy({
          a.offsets[$0] < b.offsets[$0] + b.sizes[$0] && b.offsets[$0] < a.offsets[$0] + a.sizes[$0]
        }) {
          return (one, other)
        }
      }
    }
    return nil
  }

  /// The file and the offset in it of the first byte, when all bytes of the tensor follow each other there.
  package var place: (file: Int, offset: Int)? {
    guard parts.count == 1, parts[0].compressed == nil, let range = parts[0].view.range else { return nil }
    return (parts[0].file, range.lowerBound + parts[0].first * width)
  }

  /// Where something of it lies, to be named in messages.
  package var location: (file: Int, offset: Int)? {
    parts.first.map { ($0.file, $0.view.start.addingSaturated($0.first * width)) }
  }

  // MARK: - Reading

  /// Some elements of a part that lie one after the other in it, and in the whole.
  private struct Run {
    var source: Int
    var target: Int
    var count: Int
  }

  /// Bytes of a part that are read at once where its rows are shorter than those of the whole.
  private static let batchSize = 1 << 20

  /// Copies bytes of the whole.
  ///
  /// - Parameter open: gives the file that a part is in, and its view there.
  package func read(
    at offset: Int, into destination: inout MutableRawSpan,
    open: (Part) throws(Failure) -> (file: InputFile, view: PyTorchTensor)
  ) throws(Failure) {
    guard offset % width == 0, destination.byteCount % width == 0, offset >= 0,
      destination.byteCount <= info.byteCount - offset
    else { throw Failure(.internal, "a piece cuts an element in two", tensor: info.name.string) }
    if destination.isEmpty { return }
    let wanted = offset / width..<(offset + destination.byteCount) / width
    for part in parts {
      var runs: [Run] = []
      func flush() throws(Failure) {
        try copy(runs, of: part, to: wanted.lowerBound, into: &destination, open(part))
        runs = []
      }
      try forEachRun(of: part, in: wanted) { (run) throws(Failure) in
        let first = runs.first?.source ?? run.source
        if let last = runs.last,
          last.source + last.count != run.source || (run.source + run.count - first) * width > Self.batchSize
        {
          try flush()
        }
        runs.append(run)
      }
      if !runs.isEmpty { try flush() }
    }
  }

  /// Runs that follow each other in the part.
  private func copy(
    _ runs: [Run], of part: Part, to start: Int, into destination: inout MutableRawSpan,
    _ source: (file: InputFile, view: PyTorchTensor)
  ) throws(Failure) {
    guard let first = runs.first, let last = runs.last else { return }
    let offset = (part.first + first.source) * width
    if runs.count == 1 {
      let target = (first.target - start) * width
      var room = destination.part(target..<target + first.count * width)
      return try source.view.read(from: source.file, at: offset, into: &room)
    }
    var scratch = ScratchBuffer(byteCount: (last.source + last.count - first.source) * width)
    var room = scratch.mutableBytes
    try source.view.read(from: source.file, at: offset, into: &room)
    let bytes = scratch.bytes
    for run in runs {
      let from = (run.source - first.source) * width
      let target = (run.target - start) * width
      var row = destination.part(target..<target + run.count * width)
      row.copy(from: bytes.extracting(from..<from + run.count * width))
    }
  }

  /// The rows of a box that are wanted, in the order of both.
  private func forEachRun(
    of part: Part, in wanted: Range<Int>, _ body: (Run) throws(Failure) -> Void
  ) throws(Failure) {
    // From this dimension on the box has whole rows of the whole: a run goes through all of them.
    var axis = grid.count - 1
    while axis > 0, part.sizes[axis] == grid[axis] { axis -= 1 }
    guard axis >= 0 else { return try body(Run(source: 0, target: 0, count: 1)) }
    let inner = grid[(axis + 1)...].reduce(1, *)
    let length = part.sizes[axis] * inner
    var strides = [Int](repeating: 1, count: grid.count)
    for at in (0..<max(0, grid.count - 1)).reversed() { strides[at] = strides[at + 1] * grid[at + 1] }
    let rows = part.sizes[..<axis].reduce(1, *)
    /// Where a row of the box begins in the whole.
    func target(_ row: Int) -> Int {
      var rest = row
      var position = part.offsets[axis] * strides[axis]
      for at in (0..<axis).reversed() {
        position += (part.offsets[at] + rest % part.sizes[at]) * strides[at]
        rest /= part.sizes[at]
      }
      return position
    }
    // Rows begin in ascending order: the first of those that end behind the beginning of what is wanted.
    let first = (0..<rows).partition { target($0) + length <= wanted.lowerBound }
    for row in first..<rows {
      let begin = target(row)
      if begin >= wanted.upperBound { return }
      let from = max(begin, wanted.lowerBound)
      let to = min(begin + length, wanted.upperBound)
      try body(Run(source: row * length + from - begin, target: from, count: to - from))
    }
  }
}
