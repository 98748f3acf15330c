public import Bytes
package import Checkpoints
public import Comparison
public import Console
import JSON
import PackedWeights
import Patterns
import Quantization
public import Tensors

/// `nibble inspect`: what a checkpoint holds, from headers alone unless statistics are asked for.
public struct Inspect: Sendable {
  /// List what is physically there, not 4-bit weights as one.
  public var isRaw = false
  /// A glob of tensor names.
  public var tensor: String?
  public var wantsStatistics = false
  /// Whether to list arrays of the files' metadata element by element.
  public var wantsMetadata = false
  /// A checkpoint that quantized weights are compared with; implies statistics.
  public var against: String?
  public var jobs = processorCount()
  public var progress = Progress.Style.automatic

  public init() {}

  public struct Row: Sendable {
    public var name: TensorName
    /// The dtype as safetensors names it, or `NF4`, `FP4`, `MLX-Q4`.
    public var type: String
    public var shape: [Int]
    public var file: String
    /// The offset in bytes from the beginning of the file.
    public var offset: Int
    public var byteCount: Int
    public var elementCount: Int
    /// `bitsandbytes-nf4`, `mlx-q4`, nil for plain tensors.
    public var scheme: String?
    public var statistics: TensorStatistics?
  }

  public struct Result: Sendable {
    public var path: String
    package var container: String
    package var metadata: [MetadataEntry]
    public var rows: [Row]
    public var warnings: [Warning]
    /// The configuration of an adapter; nil for anything else.
    package var adapter: AdapterSummary?
    /// The origin that the manifest records; nil for a checkpoint without one.
    package var provenance: Provenance?

    public var parameters: Int { rows.reduce(0) { $0.addingReportingOverflow($1.elementCount).partialValue } }
    public var byteCount: Int { rows.reduce(0) { $0 + $1.byteCount } }
    public var bitsPerParameter: Double {
      parameters > 0 ? Double(byteCount) * 8 / Double(parameters) : 0
    }
  }

  public func callAsFunction(_ path: String) throws(Failure) -> Result {
    let checkpoint = try CheckpointFiles(path: path).checkpoint
    var warnings = checkpoint.warnings
    let logical = isRaw ? LogicalTensors(plain: checkpoint) : try LogicalTensors(lenient: checkpoint)
    warnings += Warning.grouped(logical.problems.map(Warning.init))
    let pattern = tensor.map(Glob.init)
    var rows: [Row] = []
    var items: [Int] = []
    for (position, item) in logical.items.enumerated() {
      let info = logical.info(item)
      if let pattern, !pattern.matches(info.name.string) { continue }
      rows.append(row(item, info, logical))
      items.append(position)
    }
    if tensor != nil, rows.isEmpty {
      throw Failure(.missing, "no tensor matches '\(tensor ?? "")'", file: path)
    }
    if wantsStatistics || against != nil {
      try addStatistics(to: &rows, items, logical)
    }
    var result = Result(
      path: path, container: checkpoint.container, metadata: try checkpoint.metadata(isWhole: wantsMetadata),
      rows: rows,
      warnings: warnings)
    do throws(Failure) { result.adapter = try AdapterSummary(checkpoint) } catch {
      // Its tensors can be looked at whether it can be merged or not.
      result.warnings.append(Warning(error))
    }
    if let record = try? SourceRecord(path: path) { result.provenance = Provenance(record) }
    return result
  }

  private func row(_ item: LogicalTensor, _ info: TensorInfo, _ logical: LogicalTensors) -> Row {
    let type: String
    var scheme: String?
    switch item {
    case .plain(let index):
      type = logical.checkpoint.typeName(of: index)
      if type != info.type.name { scheme = "ggml-\(type.lowercased())" }
    case .packed(let weight):
      type = weight.typeName
      scheme = weight.scheme
    }
    let place = logical.checkpoint.location(of: item.payload)
    return Row(
      name: info.name, type: type, shape: info.shape, file: place.file, offset: place.offset,
      byteCount: logical.byteCount(item), elementCount: info.elementCount, scheme: scheme)
  }

  private func addStatistics(to rows: inout [Row], _ items: [Int], _ logical: LogicalTensors) throws(Failure) {
    let source = DequantizedSource(logical)
    let reference = try against.map { path throws(Failure) -> StatisticsScan.Reference in
      let files = try CheckpointFiles(path: path)
      if logical.checkpoint.files.gguf != nil { return .gguf(try GGUFContents(files, isExact: true).source) }
      return .model(try OriginalModel(files))
    }
    let total = items.reduce(0) { $0.addingSaturated(source.storedByteCount(of: $1)) }
    let progress = Progress("reading", total: total, style: progress)
    defer { progress.finish() }
    let scan = StatisticsScan(source: source, reference: reference, jobs: jobs, progress: progress)
    for (row, found) in zip(rows.indices, try scan.run(items)) { rows[row].statistics = found }
  }
}

extension Inspect.Result {
  /// Writes the object that `--json` prints, piece by piece.
  public func writeJSON(_ write: ([UInt8]) throws(Failure) -> Void) throws(Failure) {
    var json = JSONWriter()
    func flush(above limit: Int = 1 << 16) throws(Failure) {
      guard json.bytes.count > limit else { return }
      try write(json.bytes)
      json.clear()
    }
    json.beginObject(.indented)
    json.member("path", path)
    json.member("container", container)
    json.key("metadata")
    json.beginObject(.line)
    for pair in metadata {
      json.member(pair.key, pair.json)
      try flush()
    }
    json.end()
    json.key("tensors")
    json.beginArray(.indented)
    for row in rows {
      json.beginObject(.line)
      json.member("name", row.name.string)
      json.member("dtype", row.type)
      json.member("shape", row.shape)
      json.member("file", row.file)
      json.member("offset", row.offset)
      json.member("bytes", row.byteCount)
      json.member("scheme", row.scheme.map(JSONValue.string) ?? .null)
      if let statistics = row.statistics { json.member("stats", statistics.json) }
      json.end()
      try flush()
    }
    json.end(breaks: true)
    json.key("summary")
    json.beginObject(.line)
    json.member("tensors", rows.count)
    json.member("parameters", parameters)
    json.member("bytes", byteCount)
    json.member(
      "bitsPerParameter", JSONNumber((bitsPerParameter * 1e6).rounded() / 1e6).map(JSONValue.number) ?? .number(0))
    json.end()
    if let adapter { json.member("adapter", adapter.json, .line) }
    if let provenance { json.member("provenance", provenance.json, .line) }
    json.end()
    try flush(above: 0)
    try write([UInt8(ascii: "\n")])
  }

  /// A table, and a line that sums it up.
  public var table: String {
    let hasStatistics = rows.contains { $0.statistics != nil }
    let head = ["tensor", "dtype", "shape", "bytes"] + (hasStatistics ? TensorStatistics.headings : ["file"])
    let cells = rows.map { row in
      [
        row.name.string.printable(limit: 512), row.type, "[\(row.shape.map(String.init).joined(separator: ", "))]",
        String(row.byteCount),
      ] + (hasStatistics ? row.statistics?.cells ?? [] : [row.file.printable(limit: 255)])
    }
    // Numbers stand right, text left.
    var text = Table(head: head, rows: cells, right: [3] + (hasStatistics ? Array(4..<head.count) : [])).text
    let bits = (bitsPerParameter * 100).rounded() / 100
    text +=
      "\(counted(rows.count, "tensor")), \(counted(parameters, "parameter")), \(byteText(byteCount)), \(bits) bits per parameter\n"
    let losses = rows.compactMap { row in
      row.statistics?.error.map { (name: row.name.string, loss: $0.relativeMeanSquare) }
    }
    if let chart = LossChart(losses) { text += chart.text }
    if let adapter { text += adapter.text }
    if let provenance { text += provenance.text + "\n" }
    return text
  }

  public var metadataText: String {
    metadata.map { entry in
      let type = entry.type.map { " (\($0))" } ?? ""
      return "\(entry.key.printable(limit: 1024))\(type) = \(entry.text.printable(limit: 65_536))\n"
    }.joined()
  }
}
