public import Bytes
import JSON
import Safetensors
import Tensors

/// What `python -m nibble.calibrate` has measured of the inputs of a model's linear layers: safetensors with, for each
/// input, `NAME.sums` F32 `[columns]` or `[experts, columns]`, the sum of squares over all tokens, and `NAME.counts` F32,
/// how many tokens, one number or one for each expert. The member "modules" of the metadata, JSON, gives each weight the
/// name of its input: weights that are multiplied with the same share one.
///
/// Opening checks every value; they stay in the file until they are asked for.
public struct InputStatistics: Sendable {
  public static let format = "nibble-statistics"
  public static let version = "1"

  /// Where the measurements of one input are.
  private struct Input: Sendable {
    let sums: Int
    let columns: Int
    /// Tokens, one number for each expert.
    let counts: [Float]
  }

  public var fileName: String { file.file.name }
  /// The weights that have been measured.
  public var weightCount: Int { modules.count }
  /// The SHA-256 of the `config.json` of the model that was measured; nil where the file does not say.
  public let model: String?
  private let file: SafetensorsFile
  private let inputs: [String: Input]
  private let modules: [String: String]

  /// Whether a file of safetensors says that it is one of these.
  public static func isLikely(_ file: InputFile) -> Bool {
    guard let header = try? SafetensorsHeader(of: file) else { return false }
    return header.metadata.contains { $0.key == "format" && $0.value == format }
  }

  /// - Throws: `malformed` when it is damaged, inconsistent, or has a value that is no sum of squares; `unsupported` for
  ///   another version.
  public init(_ file: InputFile) throws(Failure) {
    do throws(Failure) {
      let opened = try Self.open(file)
      self.file = opened
      let metadata = Dictionary(opened.header.metadata.map { ($0.key, $0.value) }) { first, _ in first }
      guard metadata["format"] == Self.format else {
        throw Failure(.malformed, "is no file of nibble.calibrate: its metadata does not say \(Self.format)")
      }
      guard metadata["version"] == Self.version else {
        throw Failure(
          .unsupported,
          "is version '\(metadata["version"]?.printable(limit: 20) ?? "")' of \(Self.format), known is \(Self.version)")
      }
      guard let text = metadata["modules"], let json = try JSONValue(parsing: Array(text.utf8)).object else {
        throw Failure(.malformed, "its metadata has no object of modules")
      }
      var modules: [String: String] = [:]
      var inputs: [String: Input] = [:]
      for (name, value) in json.keys.compactMap({ key in json[key].map { (key, $0) } }) {
        guard let input = value.string else {
          throw Failure(.malformed, "its input is no text in the metadata", tensor: name)
        }
        modules[name] = input
        if inputs[input] == nil { inputs[input] = try Self.input(input, opened) }
      }
      model = metadata["model"]
      guard !modules.isEmpty else { throw Failure(.malformed, "has no measured weights") }
      self.modules = modules
      self.inputs = inputs
      for (name, input) in inputs {
        for expert in input.counts.indices { _ = try Self.sums(of: input, expert, name, opened) }
      }
    } catch { throw error.located(file: file.name) }
  }

  private static func open(_ file: InputFile) throws(Failure) -> SafetensorsFile {
    do throws(Failure) { return try SafetensorsFile(file) } catch {
      if error.code == .io { throw error }
      var failure = error
      failure.message = "is no file of nibble.calibrate: \(error.message)"
      throw failure
    }
  }

  private static func input(_ name: String, _ file: SafetensorsFile) throws(Failure) -> Input {
    func find(_ suffix: String) throws(Failure) -> (index: Int, info: TensorInfo) {
      guard let index = file.header.index(of: TensorName(name + suffix)) else {
        throw Failure(.malformed, "there is no '\((name + suffix).printable(limit: 200))'", tensor: name)
      }
      let info = file.tensors[index]
      guard info.type == .f32 else {
        throw Failure(.malformed, "is \(info.type.name), allowed is F32", tensor: info.name.string)
      }
      return (index, info)
    }
    let (sums, shape) = (try find(".sums").index, try find(".sums").info.shape)
    let counts = try find(".counts")
    let experts = shape.count == 2 ? shape[0] : 1
    guard (1...2).contains(shape.count), let columns = shape.last, columns > 0, experts > 0,
      counts.info.elementCount == experts
    else {
      throw Failure(
        .malformed, "is of shape \(shape), its counts of \(counts.info.shape)", tensor: name + ".sums")
    }
    let bytes = try file.file.bytes(in: file.header.range(of: counts.index))
    var tokens: [Float] = []
    for expert in 0..<experts {
      let value = number(bytes, expert)
      guard value.isFinite, value >= 0 else {
        throw Failure(.malformed, "is \(value), allowed are counts", tensor: name + ".counts")
      }
      tokens.append(value)
    }
    return Input(sums: sums, columns: columns, counts: tokens)
  }

  private static func sums(
    of input: Input, _ expert: Int, _ name: String, _ file: SafetensorsFile
  ) throws(Failure) -> [Float] {
    let start = file.header.range(of: input.sums).lowerBound + 4 * expert * input.columns
    let bytes = try file.file.bytes(in: start..<start + 4 * input.columns)
    var values: [Float] = []
    values.reserveCapacity(input.columns)
    for index in 0..<input.columns {
      let value = number(bytes, index)
      guard value.isFinite, value >= 0 else {
        throw Failure(
          .malformed, "is \(value), allowed are sums of squares", tensor: name + ".sums", offset: start + 4 * index)
      }
      values.append(value)
    }
    return values
  }

  private static func number(_ bytes: [UInt8], _ index: Int) -> Float {
    Float(bitPattern: UInt32(littleEndian: bytes.span.rawBytes.load(at: 4 * index, as: UInt32.self)))
  }

  /// Whether the correlations of a weight's inputs were measured, on any token.
  public func hasCorrelations(for weight: String) -> Bool {
    guard let name = modules[weight], let input = inputs[name], input.counts.count == 1, input.counts[0] > 0 else {
      return false
    }
    return file.header.index(of: TensorName(name + ".gram")) != nil
  }

  /// How many tokens a weight's inputs were measured on; nil where they were not.
  public func tokenCount(for weight: String) -> Float? {
    modules[weight].flatMap { inputs[$0] }.flatMap { $0.counts.count == 1 ? $0.counts[0] : nil }
  }

  /// - Throws: `malformed` where the correlations of a weight's inputs are not those of so many columns.
  public func checkCorrelations(for weight: String, columns: Int) throws(Failure) {
    guard let name = modules[weight], let input = inputs[name],
      let index = file.header.index(of: TensorName(name + ".gram"))
    else { return }
    let info = file.tensors[index]
    guard info.type == .f32, info.shape == [columns, columns] else {
      throw Failure(
        .malformed,
        "is \(info.type.name) of shape \(info.shape), needed for '\(weight.printable(limit: 200))' is F32 of "
          + "\([columns, columns])", file: fileName, tensor: info.name.string)
    }
    guard input.columns == columns else {
      throw Failure(
        .malformed, "has \(input.columns) columns, its correlations \(columns)", file: fileName,
        tensor: name + ".sums")
    }
  }

  /// The name of what a weight is multiplied with; nil where it was not measured.
  public func input(of weight: String) -> String? { modules[weight] }

  /// The mean square of each column that a weight is multiplied with; nil when none was measured, or no token came by.
  ///
  /// - Throws: `malformed` when there are more or fewer than the weight has columns.
  public func means(for weight: String, columns: Int) throws(Failure) -> [Float]? {
    guard let name = modules[weight], let input = inputs[name] else { return nil }
    guard input.columns == columns, input.counts.count == 1 else {
      throw Failure(
        .malformed, "has \(input.columns) columns × \(input.counts.count), the model's weight has \(columns)",
        file: fileName, tensor: weight)
    }
    let count = input.counts[0]
    if count == 0 { return nil }
    do throws(Failure) { return try Self.sums(of: input, 0, name, file).map { $0 / count } } catch {
      throw error.located(file: fileName)
    }
  }

  /// The sums of products of every two columns that a weight is multiplied with, over the tokens; nil when they were not
  /// measured, or no token came by.
  ///
  /// - Returns: `[columns, columns]`, symmetric.
  /// - Throws: `malformed` when there are more or fewer than the weight has columns, or a value is not finite.
  public func correlations(for weight: String, columns: Int) throws(Failure) -> [Float]? {
    guard let name = modules[weight], let input = inputs[name] else { return nil }
    guard let index = file.header.index(of: TensorName(name + ".gram")) else { return nil }
    let info = file.tensors[index]
    do throws(Failure) {
      try checkCorrelations(for: weight, columns: columns)
      guard input.counts.count == 1, input.counts[0] > 0 else { return nil }
      var values: [Float] = []
      values.reserveCapacity(columns * columns)
      let start = file.header.range(of: index).lowerBound
      for row in 0..<columns {
        let bytes = try file.file.bytes(in: start + 4 * row * columns..<start + 4 * (row + 1) * columns)
        for column in 0..<columns {
          let value = Self.number(bytes, column)
          guard value.isFinite, row != column || value >= 0 else {
            throw Failure(
              .malformed, "is \(value), allowed are finite numbers, on the diagonal not negative ones",
              tensor: info.name.string, offset: start + 4 * (row * columns + column))
          }
          values.append(value / input.counts[0])
        }
        for column in 0..<row {
          let (here, there) = (values[row * columns + column], values[column * columns + row])
          // Sums of many products, in another order perhaps: equal but for rounding.
          let bound = (values[row * columns + row] * values[column * columns + column]).squareRoot() / 64
          guard abs(here - there) <= bound else {
            throw Failure(
              .malformed,
              "is \(here) at (\(row), \(column)) and \(there) at (\(column), \(row)), needed is a "
                + "symmetric matrix", tensor: info.name.string)
          }
        }
      }
      return values
    } catch { throw error.located(file: fileName) }
  }
}
