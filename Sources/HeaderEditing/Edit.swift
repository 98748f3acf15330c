public import Bytes
public import Console
import GGUF
import JSON
import Writing

/// `nibble edit`: the metadata of one file, its data untouched.
public struct Edit: Sendable {
  /// The values to set, as `KEY=VALUE`.
  public var settings: [String] = []
  public var removals: [String] = []
  /// The keys to rename, as `OLD=NEW`.
  public var renames: [String] = []
  public var isDryRun = false
  public var progress = Progress.Style.automatic

  public init() {}

  public struct Report: Sendable {
    public var path: String
    public var container: String
    public var changes: [MetadataChange] = []
    /// Whether the data stays where it is.
    public var isHeaderOnly = true
    /// The bytes written to the file, or to be written.
    public var bytes = 0
    /// The manifest that was brought up to date.
    public var manifest: String?
    public var warnings: [Warning] = []
  }

  /// - Parameter announce: is given each warning before anything is written.
  /// - Throws: what reading or writing throws; the file is as it was then.
  public func callAsFunction(_ path: String, announce: (Warning) -> Void) throws(Failure) -> Report {
    let changes = try MetadataChanges(settings: settings, removals: removals, renames: renames)
    let name = FileName.last(of: path)
    try checkPlace(path, name)
    var warnings: [Warning] = []
    if HeaderJournal.isThere(for: path) {
      guard !isDryRun else {
        throw Failure(
          .malformed, "an edit of it was interrupted; 'nibble edit' without --dry-run puts its header right", file: name
        )
      }
      warnings.append("\(name): \(try Recovery(path: path, name: name).run())")
      announce(warnings[0])
    }
    let file = try InputFile(path: path, name: name)
    guard !changes.isEmpty else {
      guard !warnings.isEmpty else { throw Failure(.usage, "nothing to do: --set, --remove or --rename is missing") }
      let isGGUF = try GGUFHeader.isGGUF(file)
      return Report(path: path, container: isGGUF ? "gguf" : "safetensors", warnings: warnings)
    }
    let header = try EditedHeader(file, changes)
    var report = Report(path: path, container: header.container, changes: header.changes, warnings: warnings)
    let doubts = header.warnings + [try EditedModel(path: path).warning(header)].compactMap(\.self)
    report.warnings += doubts
    let manifest = try ManifestEdit(for: path, isGGUF: header.container == "gguf")
    for warning in doubts { announce(warning) }
    if header.new == header.old { return report }
    report.manifest = manifest?.name
    report.isHeaderOnly = HeaderRewrite.isInPlace(header, linkCount: file.linkCount)
    report.bytes = report.isHeaderOnly ? header.new.count : file.size - header.old.count + header.new.count
    if !isDryRun {
      report.bytes = try HeaderRewrite(path: path, file: file, header: header, manifest: manifest, progress: progress)
        .run()
    }
    return report
  }

  /// - Throws: `cannotCreate` for a link, and for what a link of a cache leads to.
  private func checkPlace(_ path: String, _ name: String) throws(Failure) {
    if let target = FileName.target(of: path) {
      throw Failure(
        .cannotCreate,
        Self.isCacheBlob(target)
          ? "is a link into a cache, whose files have their digests for names; copy it (cp -L) and edit the copy"
          : "is a link to '\(target)'; name that file itself", file: name)
    }
    if let real = FileName.real(path), Self.isCacheBlob(real) {
      throw Failure(
        .cannotCreate, "is a cache's file, which has its digest for a name; copy it and edit the copy", file: name)
    }
  }

  /// `…/models--X/blobs/HEX`.
  private static func isCacheBlob(_ path: String) -> Bool {
    let parts = path.split(separator: "/")
    guard parts.count >= 3 else { return false }
    return parts[parts.count - 2] == "blobs" && parts[parts.count - 3].contains("--")
  }
}

extension Edit.Report {
  /// The object that `--json` prints.
  public var json: String {
    JSONValue.object([
      "path": .string(path), "container": .string(container),
      "changes": .array(
        changes.map { change in
          [
            "key": .string(change.key), "newKey": change.newKey.map(JSONValue.string) ?? .null,
            "before": Self.json(change.before), "after": Self.json(change.after),
          ]
        }), "headerOnly": .bool(isHeaderOnly), "bytesOut": .number(bytes),
      "manifest": manifest.map(JSONValue.string) ?? .null, "warnings": .array(warnings.map(\.json)),
    ]).text(.indented)
  }

  private static func json(_ value: MetadataChange.Value?) -> JSONValue {
    guard let value else { return .null }
    return ["type": .string(value.type ?? "string"), "value": .string(value.text)]
  }

  /// A line for each change, then what happens to the file.
  public func text(isDryRun: Bool) -> String {
    var text = ""
    for change in changes {
      text += change.key.printable(limit: 256)
      if let new = change.newKey {
        text += " is now \(new.printable(limit: 256))\n"
      } else if let after = change.after {
        text += ": " + (change.before.map { Self.text($0) + " -> " } ?? "new, ") + Self.text(after) + "\n"
      } else {
        text += ": removed" + (change.before.map { ", was " + Self.text($0) } ?? "") + "\n"
      }
    }
    if bytes == 0 { return text + "\(path.printable()): nothing to write\n" }
    let what = isHeaderOnly ? "the header in place" : "a whole new file"
    text += "\(path.printable()): \(isDryRun ? "would write" : "wrote") \(what) (\(byteText(bytes)))"
    if let manifest { text += ", \(isDryRun ? "and" : "updated") \(manifest.printable())" }
    return text + "\n"
  }

  private static func text(_ value: MetadataChange.Value) -> String {
    (value.type.map { "\($0) " } ?? "") + "'\(value.text.printable(limit: 200))'"
  }
}
