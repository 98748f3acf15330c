package import Bytes
import GGUF
import Tensors

extension ImportanceMatrix {
  private static let sums = ".in_sum2"
  private static let counts = ".counts"

  /// The form of today: for each tensor `NAME.in_sum2`, [experts, columns] in f32, and `NAME.counts`, one for each
  /// expert.
  package static func gguf(_ file: InputFile) throws(Failure) -> Content {
    let header = try GGUFHeader(of: file)
    let metadata = header.metadata
    guard let datasets = try metadata.byteStrings("imatrix.datasets"),
      let chunkCount = try metadata.integer("imatrix.chunk_count"), try metadata.integer("imatrix.chunk_size") != nil
    else {
      throw Failure(
        .malformed, "is no importance matrix: imatrix.datasets, imatrix.chunk_count or imatrix.chunk_size is missing")
    }
    guard (0...Int(UInt32.max)).contains(chunkCount) else {
      throw Failure(.malformed, "imatrix.chunk_count is \(chunkCount), allowed are 0 to \(UInt32.max)")
    }
    var entries: [TensorName: Entry] = [:]
    for (index, tensor) in header.tensors.enumerated() {
      if let name = tensor.name.dropping(suffix: sums) {
        guard let place = header.index(of: name + counts) else {
          throw Failure(
            .malformed, "there is no '\(name.string.printable(limit: 200))\(counts)'", tensor: tensor.name.string)
        }
        entries[name] = try entry(file, header, sums: index, counts: place)
      } else if let name = tensor.name.dropping(suffix: counts), header.index(of: name + sums) == nil {
        throw Failure(
          .malformed, "there is no '\(name.string.printable(limit: 200))\(sums)'", tensor: tensor.name.string)
      }
    }
    guard !entries.isEmpty else { throw Failure(.malformed, "has no weights (NAME\(sums))") }
    return (entries, datasets, chunkCount)
  }

  private static func entry(
    _ file: InputFile, _ header: GGUFHeader, sums: Int, counts: Int
  ) throws(Failure) -> Entry {
    for index in [sums, counts] where header.tensors[index].type != .f32 {
      let tensor = header.tensors[index]
      throw Failure(.malformed, "is \(tensor.type.name), allowed is f32", tensor: tensor.name.string)
    }
    let total = header.tensors[sums].elementCount
    let experts = header.tensors[counts].elementCount
    guard experts > 0, total > 0, total % experts == 0 else {
      throw Failure(
        .malformed, "has \(total) values for \(experts) counts", tensor: header.tensors[sums].name.string)
    }
    let range = header.range(of: counts)
    let bytes = try file.bytes(in: range)
    var divisors: [Float] = []
    for index in 0..<experts {
      let count = Float(littleEndian: bytes, at: 4 * index)
      guard count.isFinite, count >= 0 else {
        throw Failure(
          .malformed, "is \(count), allowed are counts", tensor: header.tensors[counts].name.string,
          offset: range.lowerBound + 4 * index)
      }
      divisors.append(count.rounded())
    }
    return Entry(offset: header.range(of: sums).lowerBound, count: total, divisors: divisors, unmeasured: 1)
  }
}
