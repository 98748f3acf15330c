import Bytes
import Tensors

/// The group of each column of a weight, stored as I32.
struct ColumnGroups: Sendable {
  /// Position among the stored tensors.
  let index: Int
  /// How many groups there are.
  let count: Int

  /// - Parameter columns: of the weight.
  /// - Throws: `malformed` for a group that there is not.
  func read(_ columns: Int, of checkpoint: any StoredTensors) throws(Failure) -> [Int] {
    let stored = try ScratchBuffer(checkpoint, index, at: 0, count: 4 * columns)
    var groups: [Int] = []
    groups.reserveCapacity(columns)
    for column in 0..<columns {
      let group = Int(stored.bytes.load(at: 4 * column, as: Int32.self))
      guard (0..<count).contains(group) else {
        throw Failure(
          .malformed, "puts column \(column) into group \(group), allowed are 0 to \(count - 1)",
          file: checkpoint.location(of: index).file, tensor: checkpoint.tensors[index].name.string)
      }
      groups.append(group)
    }
    return groups
  }
}
