import Bytes
import Checkpoints
import Console
import PyTorch

/// Compares what files of `torch.save` hold with the checksums in them.
struct ArchiveCheck {
  let checkpoint: PyTorchCheckpoint
  let style: Progress.Style

  /// - Throws: `io` when a file cannot be read.
  func run(_ result: inout Verify.Result) throws(Failure) {
    let progress = Progress("verifying", total: checkpoint.files.reduce(0) { $0 + $1.size }, style: style)
    defer { progress.finish() }
    var unchecked: [String] = []
    for number in checkpoint.files.indices {
      let file = try checkpoint.open(number)
      guard let zip = try PyTorchArchive(file).zip else {
        unchecked.append(file.name)
        continue
      }
      if zip.entries.contains(where: { $0.crc == nil && !$0.range.isEmpty }) { unchecked.append(file.name) }
      for entry in zip.entries {
        try Interruption.check()
        do throws(Failure) { try zip.checkCRC(entry) } catch {
          if error.code == .io { throw error }
          result.add(error)
        }
        if entry.crc != nil { result.bytesChecked += entry.range.count }
        progress.advance(by: entry.range.count)
      }
    }
    if !unchecked.isEmpty {
      result.notChecked.append("values in \(StoredModel.list(unchecked)): there are no checksums in them")
    }
  }
}
