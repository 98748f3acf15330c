import Bytes
import Synchronization
import Tensors

/// Parts of tensors that are compressed, each an archive of `torch.save` in itself: the few last used are kept
/// expanded, in files without names.
final class CompressedParts: Sendable {
  /// What an archive has beside the bytes of its one tensor, at most.
  private static let slack = 1 << 20
  private static let capacity = 4

  private struct Entry {
    let file: Int
    let range: Range<Int>
    let expanded: (file: InputFile, view: PyTorchTensor)
  }

  /// The one used last is at the end.
  private let entries = Mutex<[Entry]>([])

  /// The archive that a part is in, and the part's tensor there.
  ///
  /// - Parameter range: of the compressed bytes.
  /// - Throws: `malformed` when it is not what the part is said to be.
  func open(_ part: AssembledTensor.Part, _ range: Range<Int>, in file: InputFile) throws(Failure) -> (
    file: InputFile, view: PyTorchTensor
  ) {
    try entries.withLock { (entries) throws(Failure) in
      if let position = entries.lastIndex(where: { $0.file == part.file && $0.range == range }) {
        let entry = entries.remove(at: position)
        entries.append(entry)
        return entry.expanded
      }
      let expanded = try Self.expand(part, FileSlice(file, offset: range.lowerBound, length: range.count))
      if entries.count == Self.capacity { entries.removeFirst() }
      entries.append(Entry(file: part.file, range: range, expanded: expanded))
      return expanded
    }
  }

  private static func expand(
    _ part: AssembledTensor.Part, _ slice: FileSlice
  ) throws(Failure) -> (file: InputFile, view: PyTorchTensor) {
    let info = part.view.info
    let file = try ZstandardFrames().expanded(slice, limit: info.byteCount.addingSaturated(slack))
    let archive = try PyTorchArchive(file)
    let view = try archive.tensor(of: archive.graph.root, named: info.name)
    guard view.info == info else {
      throw Failure(
        .malformed,
        "has a part of \(view.info.type.name) \(view.info.shape) where '\(DistributedMetadata.name)' says "
          + "\(info.type.name) \(info.shape)", file: slice.file.name)
    }
    return (file, view)
  }
}
