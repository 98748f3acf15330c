import Adapters
import Bytes
import Checkpoints
import JSON

/// Whether a base is the model that an adapter names as its own. Weights of another model of the same shapes fit as
/// well, and the result means nothing.
struct BaseNames {
  private let model: StoredModel
  private let record: SourceRecord
  private let names: Set<String>

  init(_ model: StoredModel) throws(Failure) {
    self.model = model
    let path = model.checkpoint.path
    record = try SourceRecord(path: path)
    let real = FileName.real(path).flatMap { SourceRecord.name(of: $0) }
    let known = [record.name, real, model.config?["_name_or_path"]?.string].compactMap(\.self) + record.origins
    names = Set(known.map(SourceRecord.lastComponent))
  }

  /// - Parameter trainedAs: what the base's weights are taken for.
  /// - Returns: nil when nothing speaks against it.
  func warning(for adapter: Adapter, trainedAs: Quantize.Code?) -> String? {
    guard let named = adapter.configuration.baseModel, !named.isEmpty, let own = record.name else { return nil }
    let wanted = SourceRecord.lastComponent(of: named)
    if names.contains(wanted) || isNamedInGGUF(wanted) { return nil }
    let shown = "'\((SourceRecord.hubName(named) ?? named).printable(limit: 200))'"
    if isSelf(named) { return nil }
    if let (code, source) = neighbour(wanted) {
      if trainedAs == code { return nil }
      // One in 4 bits is no original: it may have been made from the same.
      let isFourBit = model.quantizationMethod == .fourBit
      let origin = isFourBit ? "'\(source.printable(limit: 200))'" : "this base"
      return
        "\(adapter.path): was trained on \(shown), the \(code.rawValue.uppercased()) of \(origin): merge it into that"
        + (isFourBit ? "" : ", or with --base-as-trained \(code.rawValue)")
    }
    var text = "\(adapter.path): was trained on \(shown), and nothing says that '\(own.printable(limit: 200))'"
    text += "\(kind) is that model: merged into another one it means nothing"
    let isFourBit = ["nf4", "fp4", "4bit"].contains { wanted.lowercased().contains($0) }
    if isFourBit, model.quantizationMethod == .none, trainedAs == nil {
      text += "; by its name that is in 4 bits, to which --base-as-trained nf4 brings a base in 16"
    }
    return text
  }

  /// " (NF4 of 'X')", as far as that is known.
  private var kind: String {
    guard model.quantizationMethod == .fourBit else { return "" }
    let code = model.config?["quantization_config"]?["bnb_4bit_quant_type"]?.string == "nf4" ? "NF4" : "4 bits"
    return " (\(code)\(record.origins.first.map { " of '\($0.printable(limit: 200))'" } ?? ""))"
  }

  /// How a model that lies beside the base under that name was quantized from this base; nil when none was.
  ///
  /// It must be called much like the base: an adapter does not choose which directories are looked into.
  private func neighbour(_ name: String) -> (code: Quantize.Code, source: String)? {
    guard let real = FileName.real(model.checkpoint.path) else { return nil }
    let parts = real.split(separator: "/")
    let parent = "/" + parts.dropLast().joined(separator: "/")
    guard let own = parts.last, let directory = try? InputDirectory(path: parent),
      let found = try? directory.entries().first(where: { entry in
        entry.kind == .directory && entry.name == name && entry.name.commonPrefix(with: own).count * 2 >= own.count
      })
    else { return nil }
    return quantized(at: "\(parent)/\(found.name)")
  }

  /// How the model in a directory was quantized from this base, by its manifest; nil when it was not.
  private func quantized(at path: String) -> (code: Quantize.Code, source: String)? {
    guard !path.utf8.contains(0), let record = try? SourceRecord(path: path), let source = record.origins.first,
      names.contains(SourceRecord.lastComponent(of: source)),
      let code = record.options?["scheme"]?.string.flatMap(Quantize.Code.init)
    else { return nil }
    return (code, source)
  }

  /// Whether a path leads to the base, by another name.
  private func isSelf(_ path: String) -> Bool {
    guard !path.utf8.contains(0), let real = FileName.real(path) else { return false }
    return real == FileName.real(model.checkpoint.path)
  }

  /// A file is not called as the directory that it was made from: its metadata spell that in words, and its own name
  /// has a type added.
  private func isNamedInGGUF(_ wanted: String) -> Bool {
    guard model.checkpoint.container == "gguf" else { return false }
    func plain(_ text: String) -> String { text.lowercased().filter { $0.isLetter || $0.isNumber } }
    let wanted = plain(wanted)
    guard !wanted.isEmpty else { return false }
    if plain(record.name ?? "").hasPrefix(wanted) { return true }
    let metadata = (try? model.checkpoint.metadata(isWhole: false)) ?? []
    return metadata.contains { entry in
      let isName = entry.key == "general.name" || entry.key.hasPrefix("general.base_model.0.")
      return isName && plain(SourceRecord.lastComponent(of: entry.text)) == wanted
    }
  }
}

extension StringProtocol {
  /// The characters that both begin with.
  fileprivate func commonPrefix(with other: some StringProtocol) -> SubSequence {
    prefix(zip(self, other).prefix { $0 == $1 }.count)
  }
}
