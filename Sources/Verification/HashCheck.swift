import Bytes
import Console
import GGUF
import Tensors

/// Compares the tensor data of a GGUF model with what `llama-gguf-hash` printed.
struct HashCheck {
  let manifest: HashManifest
  let style: Progress.Style

  private static let pieceBytes = 1 << 20

  /// The digest that the manifest has for one tensor, or for one file.
  private struct Expected {
    var kind: HashManifest.Kind
    var digest: String
  }

  /// The digests that the manifest has for one file of the model.
  private struct ExpectedFile {
    var whole: [Expected] = []
    var tensors: [TensorName: [Expected]] = [:]
    var isEmpty: Bool { whole.isEmpty && tensors.isEmpty }
  }

  /// - Throws: `malformed` when the manifest says nothing of the model, or contradicts itself.
  func run(_ checkpoint: GGUFCheckpoint?, _ path: String, _ result: inout Verify.Result) throws(Failure) {
    guard let checkpoint else {
      throw Failure(
        .unsupported, "holds digests of llama-gguf-hash, which are of GGUF files only", file: manifest.name)
    }
    var used: Set<Int> = []
    var expected: [ExpectedFile] = []
    for file in checkpoint.files { expected.append(try self.expected(of: file.name, path, &used)) }
    guard !used.isEmpty else {
      let other = manifest.entries[0].subject.printable(limit: 200)
      throw Failure(
        .malformed, "says nothing of '\(checkpoint.files[0].name)'; its first line is of '\(other)'",
        file: manifest.name)
    }
    let others = manifest.entries.count - used.count
    if others > 0 {
      let what = others == 1 ? "is of another file" : "are of other files"
      result.notChecked.append("\(counted(others, "line")) of \(manifest.name), which \(what)")
    }
    let total = checkpoint.tensors.reduce(0) { $0.addingSaturated($1.byteCount) }
    let progress = Progress("verifying", total: total, style: style)
    defer { progress.finish() }
    for (file, expected) in zip(checkpoint.files, expected) {
      if expected.isEmpty {
        result.notChecked.append("'\(file.name)': \(manifest.name) says nothing of it")
      } else {
        try check(file, expected, checkpoint, progress, &result)
      }
    }
    try checkpoint.checkUnchanged()
  }

  // MARK: - Which lines are meant

  private func expected(of file: String, _ path: String, _ used: inout Set<Int>) throws(Failure) -> ExpectedFile {
    var matches: [(entry: Int, file: String, tensor: String?)] = []
    for (index, entry) in manifest.entries.enumerated() {
      guard let (name, tensor) = Self.parts(of: entry.subject, file) else { continue }
      matches.append((index, name, tensor))
    }
    // The same file name in several directories: then only the path as it was given tells.
    let names = Set(matches.map(\.file))
    if names.count > 1 {
      guard names.contains(path) else {
        throw Failure(
          .malformed, "speaks of several files named '\(file)'; name it as one of these lines does", file: manifest.name
        )
      }
      used.formUnion(matches.map(\.entry))
      matches.removeAll { $0.file != path }
    }
    var result = ExpectedFile()
    for match in matches {
      used.insert(match.entry)
      let entry = manifest.entries[match.entry]
      let expected = Expected(kind: entry.kind, digest: entry.digest)
      let known = match.tensor.map { result.tensors[TensorName($0)] ?? [] } ?? result.whole
      if let earlier = known.first(where: { $0.kind == entry.kind }) {
        guard earlier.digest == entry.digest else {
          throw Failure(
            .malformed, "has two different \(entry.kind.rawValue) of '\(entry.subject.printable(limit: 200))'",
            file: manifest.name)
        }
        continue
      }
      if let tensor = match.tensor {
        result.tensors[TensorName(tensor), default: []].append(expected)
      } else {
        result.whole.append(expected)
      }
    }
    return result
  }

  /// `DIR/FILE:TENSOR` taken apart, when FILE is the file's name.
  private static func parts(of subject: String, _ file: String) -> (file: String, tensor: String?)? {
    let own = Array(file.utf8)
    let bytes = Array(subject.utf8)
    guard bytes.count >= own.count else { return nil }
    for start in 0...(bytes.count - own.count)
    where (start == 0 || bytes[start - 1] == UInt8(ascii: "/") || bytes[start - 1] == UInt8(ascii: "\\"))
      && bytes[start..<start + own.count].elementsEqual(own)
    {
      let end = start + own.count
      if end == bytes.count { return (subject, nil) }
      if bytes[end] == UInt8(ascii: ":") {
        return (String(decoding: bytes[..<end], as: UTF8.self), String(decoding: bytes[(end + 1)...], as: UTF8.self))
      }
    }
    return nil
  }

  // MARK: - Reading

  private func check(
    _ file: GGUFCheckpoint.File, _ expected: ExpectedFile, _ checkpoint: GGUFCheckpoint, _ progress: Progress,
    _ result: inout Verify.Result
  ) throws(Failure) {
    let known = Set(file.tensors.map { checkpoint.tensors[$0].name })
    for name in expected.tensors.keys.sorted() where !known.contains(name) {
      result.add(file: file.name, tensor: name, "is not in the file, \(manifest.name) has its digest")
    }
    let open = try checkpoint.open(checkpoint.fileIndex(of: file.tensors.lowerBound))
    var whole = Hashers(expected.whole.map(\.kind))
    var buffer = ScratchBuffer(byteCount: Self.pieceBytes)
    var room = buffer.mutableBytes
    var unlisted = 0
    for index in file.tensors {
      let tensor = checkpoint.tensors[index]
      let wanted = expected.tensors[tensor.name] ?? []
      if wanted.isEmpty { unlisted += 1 }
      if wanted.isEmpty, expected.whole.isEmpty { continue }
      var own = Hashers(wanted.map(\.kind))
      let start = checkpoint.location(of: index).offset
      var position = 0
      while position < tensor.byteCount {
        try Interruption.check()
        let count = min(Self.pieceBytes, tensor.byteCount - position)
        var piece = room.part(0..<count)
        try open.read(at: start + position, into: &piece)
        whole.update(piece.bytes)
        own.update(piece.bytes)
        position += count
        progress.advance(by: count)
      }
      result.bytesChecked += tensor.byteCount
      result.tensorsChecked += 1
      Self.compare(wanted, &own) {
        result.add(file: file.name, tensor: tensor.name, "\($0), \(manifest.name) says \($1)")
      }
    }
    Self.compare(expected.whole, &whole) {
      result.add(file: file.name, "of all tensor data, \($0), \(manifest.name) says \($1)")
    }
    if unlisted > 0, expected.whole.isEmpty {
      result.notChecked.append("\(counted(unlisted, "tensor")) of '\(file.name)', which \(manifest.name) does not list")
    }
  }

  private static func compare(
    _ expected: [Expected], _ hashers: inout Hashers, _ report: (_ found: String, _ said: String) -> Void
  ) {
    for item in expected {
      let digest = hashers.finish(item.kind)
      if digest != item.digest { report("\(item.kind.rawValue) is \(digest)", item.digest) }
    }
  }

  /// The digests that are asked for, of one run of bytes.
  private struct Hashers: ~Copyable {
    private var xxh64: XXH64Hasher?
    private var sha1: SHA1Hasher?
    private var sha256: SHA256Hasher?
    private var uuid: SHA1Hasher?

    /// llama.cpp's: ef001206-dadc-5f6d-a15f-3359e577d4e5.
    private static let nameSpace: [UInt8] = [
      0xef, 0x00, 0x12, 0x06, 0xda, 0xdc, 0x5f, 0x6d, 0xa1, 0x5f, 0x33, 0x59, 0xe5, 0x77, 0xd4, 0xe5,
    ]

    init(_ kinds: [HashManifest.Kind]) {
      xxh64 = kinds.contains(.xxh64) ? XXH64Hasher() : nil
      sha1 = kinds.contains(.sha1) ? SHA1Hasher() : nil
      sha256 = kinds.contains(.sha256) ? SHA256Hasher() : nil
      uuid = kinds.contains(.uuid) ? SHA1Hasher() : nil
      uuid?.update(Self.nameSpace.span.rawBytes)
    }

    mutating func update(_ bytes: RawSpan) {
      xxh64?.update(bytes)
      sha1?.update(bytes)
      sha256?.update(bytes)
      uuid?.update(bytes)
    }

    mutating func finish(_ kind: HashManifest.Kind) -> String {
      switch kind {
      case .xxh64: xxh64?.finish() ?? ""
      case .sha1: sha1?.finish() ?? ""
      case .sha256: sha256?.finish() ?? ""
      case .uuid: finishUUID()
      }
    }

    private mutating func finishUUID() -> String {
      guard var bytes = uuid?.finishBytes() else { return "" }
      bytes[6] = bytes[6] & 0x0F | 0x50
      bytes[8] = bytes[8] & 0x3F | 0x80
      let digits = bytes.prefix(16).map { byte in
        let text = String(byte, radix: 16)
        return text.utf8.count == 1 ? "0" + text : text
      }
      var text = ""
      for (index, pair) in digits.enumerated() { text += ([4, 6, 8, 10].contains(index) ? "-" : "") + pair }
      return text
    }
  }
}
