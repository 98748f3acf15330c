import Bytes
import Tensors
import TestSupport
import Testing

@testable import PyTorch

/// Tensors that lie in parts.
@Suite struct AssembledTensorTests {
  /// A whole of 32-bit numbers, each its own position, cut into boxes.
  private struct Cut {
    var shape: [Int]
    var boxes: [(offsets: [Int], sizes: [Int])]

    /// Cuts a box at random along one axis after the other.
    init(_ shape: [Int], cuts: Int, using generator: inout SplitMix64) {
      self.shape = shape
      boxes = [(shape.map { _ in 0 }, shape)]
      for _ in 0..<cuts {
        let number = Int.random(in: 0..<boxes.count, using: &generator)
        let axis = Int.random(in: 0..<shape.count, using: &generator)
        let (offsets, sizes) = boxes[number]
        // Also one without elements.
        let place = Int.random(in: 0...sizes[axis], using: &generator)
        boxes[number].sizes[axis] = place
        boxes.append((offsets, sizes))
        boxes[boxes.count - 1].offsets[axis] += place
        boxes[boxes.count - 1].sizes[axis] -= place
      }
      boxes.shuffle(using: &generator)
    }

    init(_ shape: [Int], _ boxes: [(offsets: [Int], sizes: [Int])]) {
      self.shape = shape
      self.boxes = boxes
    }

    func numbers(_ box: (offsets: [Int], sizes: [Int])) -> [UInt32] {
      let count = box.sizes.reduce(1, *)
      guard box.sizes.count == shape.count else { return Array(repeating: 0, count: count) }
      return (0..<count).map { element in
        var (rest, position, stride) = (element, 0, 1)
        for axis in shape.indices.reversed() {
          position += (box.offsets[axis] + rest % max(1, box.sizes[axis])) * stride
          rest /= max(1, box.sizes[axis])
          stride *= shape[axis]
        }
        return UInt32(position)
      }
    }
  }

  private let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  /// - Parameter lead: elements before the box in its view.
  private func assembled(
    _ cut: Cut, shape: [Int]? = nil, lead: Int = 0
  ) throws -> (tensor: AssembledTensor, file: InputFile) {
    var tensors: [(String, [UInt8])] = []
    var storages: [(key: String, data: [UInt8])] = []
    for (number, box) in cut.boxes.enumerated() {
      let numbers = Array(repeating: 7, count: lead) + cut.numbers(box)
      let key = "\(number)"
      tensors.append((key, Pickle.tensor(Pickle.storage(numbers.count, "IntStorage", key: key), [numbers.count])))
      storages.append((key, numbers.flatMap { Pickle.little($0, 4) }))
    }
    let file = try opened(TorchBuilder.zip(Pickle.whole(Pickle.dictionary(tensors)), storages), in: directory)
    let parts = try cut.boxes.enumerated().map { number, box in
      let view = try #require(file.contents.index(of: TensorName("\(number)")).map { file.contents.tensors[$0] })
      return AssembledTensor.Part(file: 0, view: view, first: lead, offsets: box.offsets, sizes: box.sizes)
    }
    let info = try TensorInfo(name: "w", type: .i32, shape: shape ?? cut.shape)
    return (try AssembledTensor(info, grid: shape == nil ? nil : cut.shape, parts: parts), file.file)
  }

  private func check(_ cut: Cut, shape: [Int]? = nil, lead: Int = 0, using generator: inout SplitMix64) throws {
    let (tensor, file) = try assembled(cut, shape: shape, lead: lead)
    let count = cut.shape.reduce(1, *)
    var ranges = [0..<count]
    for _ in 0..<8 {
      let from = Int.random(in: 0...count, using: &generator)
      ranges.append(from..<Int.random(in: from...count, using: &generator))
    }
    for range in ranges {
      var bytes = [UInt8](repeating: 0xEE, count: 4 * range.count)
      var span = bytes.mutableSpan
      var room = span.mutableBytes
      try tensor.read(at: 4 * range.lowerBound, into: &room) { (part) throws(Failure) in (file, part.view) }
      #expect(bytes == range.flatMap { Pickle.little(UInt32($0), 4) }, "\(cut.boxes) \(range)")
    }
  }

  @Test(arguments: [[30], [7, 5], [1, 9], [4, 1, 6], [3, 4, 5], [2, 3, 2, 4]]) func boxes(_ shape: [Int]) throws {
    var generator = SplitMix64(seed: UInt64(shape.reduce(0) { 10 * $0 + $1 }))
    for cuts in 0..<10 {
      try check(Cut(shape, cuts: cuts, using: &generator), lead: cuts % 3, using: &generator)
    }
  }

  /// Rows of a part that fill more than what is read at once.
  @Test func batches() throws {
    var generator = SplitMix64(seed: 1)
    try check(
      Cut([1500, 500], [([0, 0], [1500, 210]), ([0, 210], [1500, 290])]), using: &generator)
  }

  /// Elements counted through, whatever the shape: as ZeRO cuts them.
  @Test func flat() throws {
    var generator = SplitMix64(seed: 2)
    try check(Cut([15], [([0], [8]), ([8], [7])]), shape: [5, 3], lead: 4, using: &generator)
  }

  @Test func scalar() throws {
    var generator = SplitMix64(seed: 3)
    try check(Cut([], [([], [])]), using: &generator)
  }

  @Test(arguments: [
    ("a hole", [([0, 0], [2, 3]), ([3, 0], [2, 3])], "has 12 elements in its 2 parts, its shape [5, 3] has 15"),
    ("an overlap", [([0, 0], [3, 3]), ([2, 0], [2, 3])], "has parts at [0, 0] and [2, 0] that overlap"),
    ("the same twice", [([0, 0], [1, 3]), ([0, 0], [1, 3]), ([1, 0], [3, 3])], "that overlap"),
    ("beyond the end", [([0, 0], [3, 3]), ([4, 0], [2, 3])], "has a part of shape [2, 3] at [4, 0]"),
    ("another number of dimensions", [([0], [15])], "has a part of shape [15] at [0]"),
    ("an overlap of columns", [([0, 0], [5, 2]), ([0, 1], [5, 1])], "that overlap"),
  ]) func faults(_ name: String, _ boxes: [([Int], [Int])], _ message: String) throws {
    let failure = try #require(throws: Failure.self) {
      _ = try assembled(Cut([5, 3], boxes.map { (offsets: $0.0, sizes: $0.1) }))
    }
    #expect(failure.code == .malformed && failure.message.contains(message), "\(failure)")
    #expect(failure.tensor == "w")
  }
}
