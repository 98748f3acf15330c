public import Bytes
import GGUF
package import Tensors

/// How much each column of a tensor matters for what a model says, as `llama-imatrix` has measured it: the mean of the
/// squares that the column was multiplied with.
///
/// Opening checks every value; they stay in the file until they are asked for.
public struct ImportanceMatrix: Sendable {
  public static let entryLimit = 1_000_000

  /// Where the values of one tensor are.
  package struct Entry: Sendable {
    /// First byte of the sums in the file.
    package let offset: Int
    /// The number of all values.
    package let count: Int
    /// The divisors of the sums: one number for each expert, or for all; 0 where nothing was measured.
    let divisors: [Float]
    /// The value in place of a sum whose divisor is 0; nil for the sum itself.
    let unmeasured: Float?
  }

  /// The texts it was measured on, as far as it says.
  public let datasets: [[UInt8]]
  /// Pieces of text it was measured on; 0 when it does not say.
  public let chunkCount: Int
  private let file: InputFile
  private let entries: [TensorName: Entry]

  /// The file's name as the user gave it.
  public var fileName: String { file.name }
  public var entryCount: Int { entries.count }
  public var names: [String] { entries.keys.sorted().map(\.string) }

  /// - Parameter file: of either form, known by its content.
  /// - Throws: `malformed` when it is damaged, inconsistent, or has a value that is not a mean of squares.
  public init(_ file: InputFile) throws(Failure) {
    do throws(Failure) {
      let content = try GGUFHeader.isGGUF(file) ? Self.gguf(file) : Self.legacy(file)
      self.file = file
      datasets = content.datasets
      chunkCount = content.chunkCount
      entries = content.entries
      for (name, entry) in entries {
        do throws(Failure) { _ = try values(of: entry) } catch { throw error.located(tensor: name.string) }
      }
    } catch { throw error.located(file: file.name) }
  }

  package typealias Content = (entries: [TensorName: Entry], datasets: [[UInt8]], chunkCount: Int)

  /// The weights of a tensor of `experts` matrices (1 for most) with rows of `columns`, expert by expert; nil when none
  /// were measured.
  ///
  /// - Throws: `malformed` when there are more or fewer, save for the embedding, which is never multiplied.
  public func weights(for name: String, columns: Int, experts: Int) throws(Failure) -> [Float]? {
    guard let entry = entries[TensorName(name)] else { return nil }
    let (wanted, overflowed) = columns.multipliedReportingOverflow(by: experts)
    guard !overflowed, entry.count == wanted else {
      if TensorRole(name: name) == .embedding { return nil }
      throw Failure(
        .malformed, "has \(entry.count) weights, the tensor \(columns) columns × \(experts) matrices", file: file.name,
        tensor: name)
    }
    do throws(Failure) { return try values(of: entry) } catch { throw error.located(file: file.name, tensor: name) }
  }

  private func values(of entry: Entry) throws(Failure) -> [Float] {
    let bytes = try file.bytes(in: entry.offset..<entry.offset + 4 * entry.count)
    let each = entry.count / entry.divisors.count
    var values: [Float] = []
    values.reserveCapacity(entry.count)
    for index in 0..<entry.count {
      let sum = Float(littleEndian: bytes, at: 4 * index)
      guard sum.isFinite, sum >= 0 else {
        throw Failure(
          .malformed, "is \(sum), allowed are sums of squares", offset: entry.offset + 4 * index)
      }
      let divisor = entry.divisors[index / each]
      values.append(divisor > 0 ? sum / divisor : entry.unmeasured ?? sum)
    }
    return values
  }
}

extension Float {
  package init(littleEndian bytes: [UInt8], at offset: Int) {
    let bits = bytes[offset..<offset + 4].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    self.init(bitPattern: bits)
  }
}
