import Bytes
import Checkpoints
import Console
import Tensors
import Writing

/// Compares every byte of a checkpoint's files with its manifest.
struct DigestCheck {
  let manifest: Manifest
  let jobs: Int
  let style: Progress.Style

  /// Small enough for the ring to stay in a cache between reading and hashing.
  static let pieceBytes = 128 * 1024

  /// - Parameter directory: holds the files; nil when one was named that a manifest from elsewhere vouches for.
  /// - Parameter isWhole: whether the manifest is for all that is in the directory.
  func run(
    _ path: String, _ directory: InputDirectory?, isWhole: Bool, _ result: inout Verify.Result
  ) throws(Failure) {
    if let directory, isWhole {
      try findExtraFiles(directory, &result)
      if directory.contains(Manifest.fileName) {
        do throws(Failure) {
          try compareChecksums(directory, &result)
        } catch {
          if error.code == .io { throw error }
          result.add(error)
        }
      }
    }
    var files: [ListedFile] = []
    for (number, entry) in manifest.files.enumerated() {
      guard let file = try open(entry.name, path, directory, &result) else { continue }
      guard file.size == entry.size else {
        // Not a digest to compare: every byte behind the cut would be in the wrong place.
        let lost = tensors(of: number).first { $0.offset + $0.byteCount > file.size }
        result.add(
          file: entry.name, tensor: lost?.name,
          "the file is \(Self.distance(file.size, entry.size)): it has \(file.size) bytes, the manifest says \(entry.size)"
        )
        continue
      }
      files.append(ListedFile(number: number, identity: file.identity, tensors: tensors(of: number)))
    }
    let names = files.map { manifest.files[$0.number].name }
    let pool = FilePool(identities: files.map(\.identity)) { (index) throws(Failure) in
      guard let directory else { return try InputFile(path: path, name: names[index]) }
      return try directory.open(path: names[index])
    }
    try digest(files, pool, &result)
  }

  private static func distance(_ found: Int, _ expected: Int) -> String {
    let count = found < expected ? expected - found : found - expected
    return "\(count == 1 ? "one byte" : "\(count) bytes") too \(found < expected ? "short" : "long")"
  }

  private func tensors(of file: Int) -> [Manifest.Tensor] {
    manifest.tensors.filter { $0.file == file }.sorted { $0.offset < $1.offset }
  }

  private func open(
    _ name: String, _ path: String, _ directory: InputDirectory?, _ result: inout Verify.Result
  ) throws(Failure) -> InputFile? {
    guard let directory else {
      // One file was named: a manifest that lies elsewhere vouches for it alone.
      let own = path.split(separator: "/").last.map(String.init) ?? path
      return own == name ? try InputFile(path: path, name: name) : nil
    }
    do throws(Failure) {
      return try directory.open(path: name)
    } catch {
      if error.code == .io { throw error }
      if directory.contains(path: name) { result.add(error) } else { result.add(file: name, "is missing") }
      return nil
    }
  }

  /// The list for `xxhsum` repeats the manifest's digests and vouches for the manifest itself.
  private func compareChecksums(_ directory: InputDirectory, _ result: inout Verify.Result) throws(Failure) {
    let name = Manifest.checksumsName
    guard directory.contains(name) else { return result.add(file: name, "is missing") }
    var expected: [TensorName: XXH128Digest] = [:]
    for file in manifest.files { expected[TensorName(file.name)] = file.xxh128 }
    var own = XXH3Hasher()
    let manifestBytes = try directory.open(Manifest.fileName).contents(limit: Manifest.sizeLimit)
    own.update(manifestBytes.span.rawBytes)
    expected[TensorName(Manifest.fileName)] = own.digest128
    let bytes = try directory.open(name).contents(limit: Manifest.sizeLimit)
    for line in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: true) {
      guard let text = String(validating: line, as: UTF8.self), text.utf8.count > 34,
        let digest = XXH128Digest(hexadecimal: String(text.prefix(32))), text.dropFirst(32).hasPrefix("  ")
      else {
        result.add(file: name, "has a line that is no 'DIGEST  FILE'")
        continue
      }
      let file = String(text.dropFirst(34))
      guard let known = expected.removeValue(forKey: TensorName(file)) else {
        result.add(file: name, "lists '\(file)', which the manifest does not, or lists it twice")
        continue
      }
      guard known == digest else {
        let isManifest = file == Manifest.fileName
        result.add(
          file: isManifest ? file : name,
          isManifest
            ? "is not what \(name) says: \(known), not \(digest)"
            : "gives '\(file)' the digest \(digest), the manifest \(known)")
        continue
      }
    }
    for missing in expected.keys.sorted() { result.add(file: name, "does not list '\(missing)'") }
    result.bytesChecked += bytes.count + manifestBytes.count
  }

  // MARK: - Reading everything

  /// A file that is there in the right size.
  private struct ListedFile: Sendable {
    /// Position in the manifest.
    var number: Int
    /// The identity taken when the file's size was compared.
    var identity: FileIdentity
    var tensors: [Manifest.Tensor]
  }

  private func digest(_ files: [ListedFile], _ pool: FilePool, _ result: inout Verify.Result) throws(Failure) {
    let total = files.reduce(0) { $0 + $1.identity.size }
    let progress = Progress("verifying", total: total, style: style)
    defer { progress.finish() }
    let stream = OrderedStream<RangeCursor, SharedBuffer>(jobs: jobs) { SharedBuffer(byteCount: Self.pieceBytes) }
    var state = FileState()
    var found = result
    var unreadable: Failure?
    do throws(Failure) {
      try stream.run(RangeCursor(files.map(\.identity.size), limit: Self.pieceBytes)) { piece, buffer throws(Failure) in
        var target = buffer.part(0..<piece.range.count)
        try pool.file(piece.item).read(at: piece.range.lowerBound, into: &target)
      } drain: { piece, buffer throws(Failure) in
        let listed = files[piece.item]
        let entry = manifest.files[listed.number]
        if piece.range.lowerBound == 0 { state.begin(wantsSHA256: entry.sha256 != nil) }
        let bytes = buffer.bytes.extracting(first: piece.range.count)
        state.update(
          bytes, at: piece.range.lowerBound, listed.tensors, file: (piece.item, entry.name), &found)
        if piece.range.upperBound == listed.identity.size { state.finish(entry, &found) }
        progress.advance(by: piece.range.count)
      }
    } catch { unreadable = error }
    if let unreadable { throw unreadable }
    for damage in state.damages {
      let file = try pool.file(damage.file)
      if let text = try DamagedPieces(of: damage.tensor, in: file)?.text {
        found.problems[damage.problem].problem += text
      }
    }
    result = found
    result.bytesChecked += total
  }

  /// Digests of the file being read and of the tensor in it being read.
  private struct FileState: ~Copyable {
    private var whole = XXH3Hasher()
    private var part = XXH3Hasher()
    private var sha256: SHA256Hasher?
    private var tensor = 0
    private var hasBadTensor = false
    /// The damaged tensors of all files so far.
    private(set) var damages: [Damage] = []

    struct Damage {
      /// Position among the files that are read.
      var file: Int
      var tensor: Manifest.Tensor
      /// Position among the problems.
      var problem: Int
    }

    mutating func begin(wantsSHA256: Bool) {
      whole.reset()
      part.reset()
      sha256 = wantsSHA256 ? SHA256Hasher() : nil
      tensor = 0
      hasBadTensor = false
    }

    mutating func update(
      _ bytes: RawSpan, at start: Int, _ tensors: [Manifest.Tensor],
      file: (index: Int, name: String),
      _ result: inout Verify.Result
    ) {
      whole.update(bytes)
      sha256?.update(bytes)
      let end = start + bytes.byteCount
      while tensor < tensors.count, tensors[tensor].offset <= end {
        let entry = tensors[tensor]
        let last = entry.offset + entry.byteCount
        let from = max(entry.offset, start)
        let to = min(last, end)
        if from < to { part.update(bytes.extracting(from - start..<to - start)) }
        if last > end { return }
        result.tensorsChecked += 1
        if part.digest != entry.xxh3 {
          hasBadTensor = true
          damages.append(Damage(file: file.index, tensor: entry, problem: result.problems.count))
          result.add(file: file.name, tensor: entry.name, "digest is \(part.digest), the manifest says \(entry.xxh3)")
        }
        part.reset()
        tensor += 1
      }
    }

    mutating func finish(_ entry: Manifest.File, _ result: inout Verify.Result) {
      let digest = whole.digest128
      if digest != entry.xxh128, !hasBadTensor {
        let isWeights = entry.name.hasSuffix(".safetensors")
        result.add(
          file: entry.name,
          "\(isWeights ? "its header differs: digest" : "digest") is \(digest), the manifest says \(entry.xxh128)")
      }
      // Only what xxHash does not see: a forged file.
      if digest == entry.xxh128, let expected = entry.sha256, let digest = sha256?.finish(), digest != expected {
        result.add(file: entry.name, "SHA-256 is \(digest), the manifest says \(expected)")
      }
    }
  }
}
