import Bytes
import Checkpoints

/// Ends an edit that was interrupted while it wrote the header.
struct Recovery {
  let path: String
  let name: String

  /// - Returns: what was done, in words.
  /// - Throws: `malformed` when the file is neither as it was nor as it was to be.
  func run() throws(Failure) -> String {
    // Not while the edit that wrote the journal is still alive: the hidden directory is its lock.
    let names = try manifest(HeaderJournal(for: path))?.hasChecksums == true ? [Manifest.checksumsName] : []
    let staged = try StagedFiles(path: path, names: names, replacing: true)
    let journal = try HeaderJournal(for: path)
    let manifest = try manifest(journal)
    let file = try InputFile(path: path, name: name)
    let (header, isNew) = try journal.outcome(for: file, listed: manifest?.entry.xxh128)
    let target = try EditedFile(path: path, name: name)
    guard target.identity == file.identity else {
      throw Failure(.io, "was replaced or changed while it was being read", file: name)
    }
    try target.replaceBeginning(header)
    // The list repeats the manifest, and may be one edit behind it.
    if let manifest, !names.isEmpty { try manifest.writeChecksums(into: staged.files) }
    try staged.commit()
    try HeaderJournal.remove(for: path)
    return isNew ? "an edit that had been interrupted is complete" : "an edit that had been interrupted was undone"
  }

  private func manifest(_ journal: HeaderJournal) throws(Failure) -> ManifestEdit? {
    guard journal.newDigest != nil else { return nil }
    return try ManifestEdit(for: path, isGGUF: journal.old.starts(with: Array("GGUF".utf8)))
  }
}
