package import Bytes
import Dispatch
import Synchronization

/// A range of things cut into blocks of a fixed size, done by several workers at once.
///
/// Where it is cut does not depend on the number of workers; so neither does what a sum over each block is.
package struct Blocks: Sendable {
  package let count: Int
  package let size: Int
  let jobs: Int

  /// - Parameters:
  ///   - count: things in all.
  ///   - size: of every block but the last.
  package init(_ count: Int, of size: Int, jobs: Int) {
    precondition(count >= 0 && size > 0 && jobs > 0)
    self.count = count
    self.size = size
    self.jobs = jobs
  }

  package var number: Int { count / size + (count % size == 0 ? 0 : 1) }

  private struct Failed {
    var block: Int
    var failure: Failure
  }

  /// - Parameter body: is given a block's number and range, by several threads at once.
  /// - Throws: the failure of the first block that failed; `interrupted` and the like after a signal.
  package func perform(_ body: @Sendable (_ block: Int, _ range: Range<Int>) throws(Failure) -> Void) throws(Failure) {
    let next = Atomic<Int>(0)
    let failed = Mutex<Failed?>(nil)
    let number = number
    DispatchQueue.concurrentPerform(iterations: min(jobs, max(1, number))) { _ in
      while true {
        let block = next.wrappingAdd(1, ordering: .relaxed).oldValue
        // Those before a failed block have been claimed already, so that the first failure is found.
        guard block < number, failed.withLock({ $0 == nil }) else { return }
        do throws(Failure) {
          try Interruption.check()
          try body(block, block * size..<min(count, (block + 1) * size))
        } catch {
          failed.withLock { if block < $0?.block ?? .max { $0 = Failed(block: block, failure: error) } }
        }
      }
    }
    if let failed = failed.withLock({ $0 }) { throw failed.failure }
  }
}
