public import Bytes
public import GGUF

/// A model card (`README.md`) that says what `general.*` of a GGUF file says, in the keys that the conversion to GGUF
/// reads; nil where it says nothing.
///
/// - Throws: `malformed` where a key has another type than the field gives it.
public func modelCard(_ metadata: GGUFMetadata) throws(Failure) -> [UInt8]? {
  var lines: [String] = []
  for (key, names) in GeneralMetadata.cardKeys {
    guard let text = try metadata.text("general." + key), let name = names.first else { continue }
    lines.append("\(name): \(quoted(text))")
  }
  for (key, name) in [("tags", "tags"), ("languages", "language")] {
    guard let stored = try metadata.byteStrings("general." + key) else { continue }
    lines.append("\(name):")
    lines += stored.map { "- " + quoted(String(decoding: $0, as: UTF8.self)) }
  }
  for (kind, name, sources) in [
    ("base_model", "base_model", "base_model_sources"), ("dataset", "datasets", "dataset_sources"),
  ] {
    let origins = try origins(metadata, kind)
    if origins.isEmpty { continue }
    let identifiers = origins.compactMap(\.identifier)
    // Names of the hub are what readers of model cards expect; what they cannot say is written out.
    if identifiers.count == origins.count {
      lines.append("\(name):")
      lines += identifiers.map { "- " + quoted($0) }
    } else {
      lines.append("\(sources):")
      for origin in origins {
        let pairs = GeneralMetadata.Origin.keys.compactMap { key in origin.values[key].map { "\(key): \(quoted($0))" } }
        lines += pairs.enumerated().map { ($0.offset == 0 ? "- " : "  ") + $0.element }
      }
    }
  }
  return lines.isEmpty ? nil : Array("---\n\(lines.joined(separator: "\n"))\n---\n".utf8)
}

private func origins(_ metadata: GGUFMetadata, _ kind: String) throws(Failure) -> [GeneralMetadata.Origin] {
  let limit = 1000
  let count = try metadata.integer("general.\(kind).count") ?? 0
  guard (0...limit).contains(count) else {
    throw Failure(.malformed, "metadata 'general.\(kind).count' is \(count), allowed are 0 to \(limit)")
  }
  var origins: [GeneralMetadata.Origin] = []
  for number in 0..<count {
    var origin = GeneralMetadata.Origin()
    for key in GeneralMetadata.Origin.keys {
      origin.values[key] = try metadata.text("general.\(kind).\(number).\(key)")
    }
    origins.append(origin)
  }
  return origins
}

extension GeneralMetadata.Origin {
  /// `owner/name` of the hub, where that says all of it.
  fileprivate var identifier: String? {
    let host = "https://huggingface.co/"
    guard let address = values["repo_url"], address.hasPrefix(host) else { return nil }
    let identifier = String(address.dropFirst(host.count))
    return GeneralMetadata.origin(identifier, 0).values == values ? identifier : nil
  }
}

/// A scalar of YAML in double quotes.
private func quoted(_ text: String) -> String {
  var result = "\""
  for scalar in text.unicodeScalars {
    switch scalar {
    case "\"": result += "\\\""
    case "\\": result += "\\\\"
    case "\n": result += "\\n"
    case "\t": result += "\\t"
    case _ where scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value):
      let digits = String(scalar.value, radix: 16)
      result += "\\x" + (digits.count == 1 ? "0" : "") + digits
    default: result.unicodeScalars.append(scalar)
    }
  }
  return result + "\""
}
