import Synchronization

/// The results of the blocks of a computation, set by the workers and read in the order of the blocks.
package final class BlockResults<Value: Sendable>: Sendable {
  private let values: Mutex<[Value?]>

  package init(_ count: Int) { values = Mutex(Array(repeating: nil, count: count)) }

  package func set(_ block: Int, _ value: Value) { values.withLock { $0[block] = value } }

  package var all: [Value] { values.withLock { $0.compactMap(\.self) } }
}
