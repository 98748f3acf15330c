package import Bytes
package import JSON

/// A model's name, and the origins that its own manifest records.
///
/// A manifest's options begin with `"source"`, the last component of the source's path or its name on the Hugging Face
/// hub, and `"lineage"`, what that was made from itself, the nearest first.
package struct SourceRecord {
  /// nil for a path that tells nothing.
  package let name: String?
  /// The origins by the model's manifest: nearest first.
  package let origins: [String]
  /// The verb that made the model, by its manifest, such as `quantize`.
  package let operation: String?
  /// `options` of the model's manifest; nil when it has none or it cannot be read.
  package let options: JSONValue?

  private static let originLimit = 16
  private static let nameLimit = 200

  package init(path: String) throws(Failure) {
    name = Self.name(of: path)
    (operation, options) = try Self.manifest(path)
    let recorded = [options?["source"]?.string] + (options?["lineage"]?.array ?? []).map(\.string)
    origins = Array(
      recorded.compactMap(\.self).filter { !$0.isEmpty && $0.utf8.count <= Self.nameLimit }.prefix(Self.originLimit))
  }

  /// The members of a manifest's options for a model made from this one.
  package var members: [(key: String, value: JSONValue)] {
    guard let name else { return [] }
    let members: [(key: String, value: JSONValue)] = [("source", .string(name))]
    return origins.isEmpty ? members : members + [("lineage", .array(origins.map(JSONValue.string)))]
  }

  // MARK: - Names

  /// The last component of a path, or the hub's `org/name` for what lies in its cache.
  package static func name(of path: String) -> String? {
    let real = FileName.real(path) ?? path
    if let hub = hubName(path) ?? hubName(real) { return hub }
    var parts = path.split(separator: "/").map(String.init)
    if parts.last.map({ [".", ".."].contains($0) }) ?? true { parts = real.split(separator: "/").map(String.init) }
    // A file of tensors is called by its directory; only GGUF has the whole model in a file.
    if parts.last?.hasSuffix(".safetensors") == true {
      parts = real.split(separator: "/").map(String.init)
      parts.removeLast()
    }
    return parts.last
  }

  /// `org/name` of `…/models--org--name/snapshots/REVISION`; nil for any other path.
  package static func hubName(_ path: String) -> String? {
    let parts = path.split(separator: "/")
    guard
      let at = parts.indices.dropLast().last(where: {
        parts[$0].hasPrefix("models--") && ["snapshots", "blobs"].contains(parts[$0 + 1])
      })
    else { return nil }
    let name = parts[at].dropFirst("models--".count)
    guard let dash = name.firstRange(of: "--") else { return String(name) }
    return "\(name[..<dash.lowerBound])/\(name[dash.upperBound...])"
  }

  /// The last component of a name, by which two names are compared: without organisation and directories.
  package static func lastComponent(of name: String) -> String {
    let name = hubName(name) ?? name
    return name.split { $0 == "/" || $0 == "\\" }.last.map(String.init) ?? name
  }

  // MARK: - The manifest

  private static func manifest(_ path: String) throws(Failure) -> (operation: String?, options: JSONValue?) {
    let place: (directory: InputDirectory, name: String)?
    if let sidecar = try GGUFSidecar(path: path, .detect(path)) {
      place = (sidecar.directory, sidecar.name)
    } else {
      place = InputDirectory.exists(at: path) ? (try InputDirectory(path: path), Manifest.fileName) : nil
    }
    guard let place, place.directory.contains(place.name) else { return (nil, nil) }
    var operation: String?
    do throws(Failure) {
      var reader = JSONReader(try place.directory.open(place.name).contents(limit: Manifest.sizeLimit))
      try reader.enterObject()
      while let (key, _) = try reader.nextMember() {
        // The lists of files and tensors, which may be long, come after it.
        if key == "options" { return (operation, try reader.value()) }
        if key == "operation" { operation = try reader.value().string } else { try reader.skipValue() }
      }
    } catch {
      if error.code == .io { throw error }
      // What the manifest is worth is for `verify` to say.
    }
    return (nil, nil)
  }
}
