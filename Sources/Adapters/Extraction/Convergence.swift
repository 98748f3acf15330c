import Bytes

/// How far the captured energy has come. What an iteration adds shrinks by a ratio that itself grows slowly
/// towards its limit, for subspace iteration (σ of the first vector left out / σ of the last wanted)⁴.
struct Convergence {
  /// Iterations go on until what further ones would capture, as the last two let expect, is less than this part of
  /// ‖M‖².
  static let enough = 2e-5

  private let total: Double
  private let limit: Int
  private var energy = 0.0
  private var gain = 0.0
  private var count = 0
  private var expected = Double.infinity

  /// - Parameters:
  ///   - total: ‖M‖².
  ///   - limit: iterations at most.
  init(total: Double, limit: Int) {
    self.total = total
    self.limit = limit
  }

  mutating func add(_ energy: Double) {
    let newGain = energy - self.energy
    let ratio = gain > 0 ? min(max(newGain / gain, 0), 0.99) : 1
    expected = ratio < 1 ? newGain * max(ratio, 0.5) / (1 - ratio) : .infinity
    self.energy = energy
    gain = newGain
    count += 1
  }

  var isReached: Bool { count > 1 && expected <= Self.enough * total || count == limit }
}

extension FloatMatrix {
  /// The same values on every machine, uniform in [-1, 1).
  static func start(_ rows: Int, _ columns: Int) throws(Failure) -> FloatMatrix {
    let matrix = try FloatMatrix(rows: rows, columns: columns)
    var random = SplitMix(state: 0x6E69_6262_6C65)
    for row in 0..<rows {
      for column in 0..<columns {
        matrix[row, column] = Float(Int32(truncatingIfNeeded: random.next() >> 40) - (1 << 23)) * 0x1p-23
      }
    }
    return matrix
  }
}
