package import Tensors

/// A checkpoint some of whose tensors are one and the same under several names.
package protocol RepeatingCheckpoint: StoredCheckpoint {
  /// Positions of those that are the same as another, which stays: the first that was saved.
  var repeated: [Int] { get }
  /// The same without them.
  var withoutRepeated: Self { get }
}

/// Which of a checkpoint's tensors are there.
package struct KeptTensors: Sendable {
  package let tensors: [TensorInfo]
  /// For each of `tensors` its position among all; nil where all are there.
  private let positions: [Int]?
  private let indices: [Int: Int]

  package init(all tensors: [TensorInfo]) {
    self.tensors = tensors
    positions = nil
    indices = [:]
  }

  /// - Parameter gone: positions of those that are not.
  package init(of tensors: [TensorInfo], without gone: [Int]) {
    let gone = Set(gone)
    let positions = tensors.indices.filter { !gone.contains($0) }
    self.tensors = positions.map { tensors[$0] }
    self.positions = positions
    indices = Dictionary(uniqueKeysWithValues: positions.enumerated().map { ($1, $0) })
  }

  /// The position of one among all.
  package func position(_ index: Int) -> Int { positions?[index] ?? index }

  /// The opposite; nil for one that is not there.
  package func index(_ position: Int) -> Int? { positions == nil ? position : indices[position] }
}
