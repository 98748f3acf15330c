public import Bytes
import JSON

/// `adapter_config.json` of a LoRA adapter: the fields that change what is merged.
public struct AdapterConfiguration: Sendable {
  public enum Bias: String, Sendable {
    case none, all
    case loraOnly = "lora_only"
  }

  public let rank: Int
  public let alpha: Double
  public let usesRSLoRA: Bool
  public let usesDoRA: Bool
  /// Weights lie `[in, out]`, as those of `Conv1D`; what PEFT wrote of the layer it came to last.
  public let isTransposed: Bool
  public let hasLoRABias: Bool
  public let bias: Bias
  /// Modules that are saved whole. PEFT adds the head of a classifier by itself.
  public let modulesToSave: [String]
  public let tiesWeights: Bool
  public let targetModules: [String]
  public let targetParameters: [String]
  /// Ranges of the base's layers that make up the model that was trained, in order.
  public let layerReplication: [Range<Int>]
  /// Tokens whose embedding was trained, by module; "" stands for the input embedding.
  public let trainableTokens: [(module: String, rows: [Int])]
  /// QA-LoRA's group size: the number of inputs that share a column of A.
  public let groupSize: Int?
  /// The modules whose A or B is stored as its diagonal blocks, in block-diagonal LoRA.
  public let blocks: BlockDiagonal?
  /// MiCA rounds the delta to the weight's dtype before it adds it.
  public let roundsDelta: Bool
  public let taskType: String?
  /// `base_model_name_or_path`: the base model that training loaded.
  public let baseModel: String?
  /// Members that PEFT does not have and that say something.
  let unknownMembers: [String]

  public struct BlockDiagonal: Sendable {
    public var count: Int
    public var modulesOfA: [String]
    public var modulesOfB: [String]

    enum Side: Sendable { case a, b, both }

    /// Which factor of a module is stored as its blocks. PEFT looks for the names anywhere in the path.
    func side(of path: String) -> Side? {
      let isA = modulesOfA.contains { path.contains($0) }
      let isB = modulesOfB.contains { path.contains($0) }
      return isA && isB ? .both : isA ? .a : isB ? .b : nil
    }
  }

  private let ranks: [(pattern: ModulePattern, value: Int)]
  private let alphas: [(pattern: ModulePattern, value: Double)]

  public static let sizeLimit = 16 << 20

  /// - Throws: `malformed` for a field of the wrong kind or out of range, `unsupported` for an adapter that
  ///   cannot be merged, with the reason and the way out.
  public init(parsing bytes: [UInt8], file: String) throws(Failure) {
    do throws(Failure) {
      try self.init(JSONValue(parsing: bytes, .python, file: file))
    } catch { throw error.located(file: file) }
  }

  private init(_ json: JSONValue) throws(Failure) {
    guard let members = json.object else { throw Failure(.malformed, "is not a JSON object") }
    let fields = Fields(members)
    try AdapterRefusal.check(fields)
    rank = try fields.required("r", fields.whole("r", 1...Int(Int32.max)))
    alpha = try fields.required("lora_alpha", fields.number("lora_alpha"))
    usesRSLoRA = try fields.flag("use_rslora")
    usesDoRA = try fields.flag("use_dora")
    isTransposed = try fields.flag("fan_in_fan_out")
    hasLoRABias = try fields.flag("lora_bias")
    let biasText = try fields.text("bias") ?? "none"
    guard let bias = Bias(rawValue: biasText) else {
      throw Failure(.malformed, "'bias' is '\(biasText)', allowed are none, all, lora_only")
    }
    self.bias = bias
    modulesToSave = try fields.texts("modules_to_save")
    tiesWeights = try fields.flag("ensure_weight_tying")
    // A pattern instead of a list only decided what was wrapped; which keys there are says that too.
    targetModules = members["target_modules"]?.string == nil ? try fields.texts("target_modules") : []
    targetParameters = try fields.texts("target_parameters")
    layerReplication = try fields.layerRanges()
    trainableTokens = try fields.tokens()
    groupSize = try fields.flag("use_qalora") ? fields.whole("qalora_group_size", 1...65536) ?? 16 : nil
    blocks = try fields.blockDiagonal()
    roundsDelta = members["init_lora_weights"]?.string?.lowercased() == "mica"
    taskType = try fields.text("task_type")
    // It says nothing that is computed with.
    baseModel = members["base_model_name_or_path"]?.string
    unknownMembers = AdapterMembers.unknown(in: members)
    ranks = try fields.patterns("rank_pattern") { value in
      value.int.flatMap { (1...Int(Int32.max)).contains($0) ? $0 : nil }
    }
    alphas = try fields.patterns("alpha_pattern") { value in value.double.flatMap { $0 >= 0 ? $0 : nil } }
  }

  /// The rank of one module and the scale of its B·A, by the module's path in the model.
  ///
  /// The scale is α/r, or α/√r for rank-stabilized LoRA. The first pattern that matches counts, in the order
  /// of the file.
  func scale(of module: String) -> (rank: Int, scale: Double) {
    let rank = ranks.first { $0.pattern.matches(module) }?.value ?? self.rank
    let alpha = alphas.first { $0.pattern.matches(module) }?.value ?? self.alpha
    return (rank, alpha / (usesRSLoRA ? Double(rank).squareRoot() : Double(rank)))
  }

  /// States of all patterns: what finding a module's scale may cost for each character of its path.
  var patternStateCount: Int {
    ranks.reduce(0) { $0 + $1.pattern.stateCount } + alphas.reduce(0) { $0 + $1.pattern.stateCount }
  }

  /// Whether `modules_to_save` names this module. PEFT compares the ends of paths.
  func saves(_ module: String) -> Bool {
    modulesToSave.contains { module == $0 || module.hasSuffix("." + $0) }
  }
}

/// The members of the configuration, read strictly: a value of the wrong kind is an error, null is absent.
struct Fields {
  let members: JSONObject

  init(_ members: JSONObject) { self.members = members }

  func value(_ key: String) -> JSONValue? {
    guard let value = members[key], !value.isNull else { return nil }
    return value
  }

  /// A guess at what is missing would change the weights.
  func required<T>(_ key: String, _ value: T?) throws(Failure) -> T {
    guard let value else { throw Failure(.malformed, "has no '\(key)'") }
    return value
  }

  func flag(_ key: String) throws(Failure) -> Bool {
    guard let value = value(key) else { return false }
    guard let flag = value.bool else { throw wrong(key, value, "true or false") }
    return flag
  }

  func text(_ key: String) throws(Failure) -> String? {
    guard let value = value(key) else { return nil }
    guard let text = value.string else { throw wrong(key, value, "a string") }
    return text
  }

  func texts(_ key: String) throws(Failure) -> [String] {
    guard let value = value(key) else { return [] }
    guard let array = value.array else { throw wrong(key, value, "an array of strings") }
    var result: [String] = []
    for element in array {
      guard let text = element.string else { throw wrong(key, element, "strings in it") }
      result.append(text)
    }
    return result
  }

  func whole(_ key: String, _ allowed: ClosedRange<Int>) throws(Failure) -> Int? {
    guard let value = value(key) else { return nil }
    guard let number = value.int, allowed.contains(number) else {
      throw wrong(key, value, "a whole number from \(allowed.lowerBound) to \(allowed.upperBound)")
    }
    return number
  }

  /// Zero is allowed: such an adapter changes nothing, which the caller says.
  func number(_ key: String) throws(Failure) -> Double? {
    guard let value = value(key) else { return nil }
    guard let number = value.double, number >= 0 else { throw wrong(key, value, "a finite number from 0 up") }
    return number
  }

  func patterns<T>(
    _ key: String, _ parse: (JSONValue) -> T?
  ) throws(Failure) -> [(pattern: ModulePattern, value: T)] {
    guard let value = value(key) else { return [] }
    guard let object = value.object else { throw wrong(key, value, "an object") }
    var result: [(pattern: ModulePattern, value: T)] = []
    for (text, value) in object.members {
      guard let parsed = parse(value) else { throw wrong("\(key).\(text)", value, "a number in range") }
      guard let pattern = ModulePattern(text) else {
        throw Failure(
          .unsupported,
          "'\(key)' has the pattern '\(text.printable(limit: 200))', which is not a regular expression of the kind "
            + "that can be matched in linear time (no looking around, no references back); spell the modules out")
      }
      result.append((pattern, parsed))
    }
    return result
  }

  /// A few bytes of configuration make a layer; no model has a hundredth of these.
  static let layerLimit = 10_000

  func layerRanges() throws(Failure) -> [Range<Int>] {
    guard let value = value("layer_replication") else { return [] }
    var ranges: [Range<Int>] = []
    var total = 0
    for pair in value.array ?? [value] {
      guard let ends = pair.array, ends.count == 2, let start = ends[0].int, let end = ends[1].int,
        (0...Self.layerLimit).contains(start), (start...Self.layerLimit).contains(end)
      else { throw wrong("layer_replication", value, "pairs [from, to] of layer numbers") }
      ranges.append(start..<end)
      total += end - start
    }
    guard (1...Self.layerLimit).contains(total) else {
      throw wrong("layer_replication", value, "1 to \(Self.layerLimit) layers in all")
    }
    return ranges
  }

  /// A list for the input embedding, or an object of lists by module name.
  func tokens() throws(Failure) -> [(module: String, rows: [Int])] {
    let key = "trainable_token_indices"
    guard let value = value(key) else { return [] }
    func rows(_ value: JSONValue) throws(Failure) -> [Int] {
      var result: [Int] = []
      for element in value.array ?? [value] {
        guard let row = element.int, row >= 0 else { throw wrong(key, element, "token numbers from 0 up") }
        result.append(row)
      }
      guard Set(result).count == result.count else { throw wrong(key, value, "each token once") }
      return result
    }
    guard let object = value.object else { return [("", try rows(value))] }
    var result: [(module: String, rows: [Int])] = []
    for (module, value) in object.members { result.append((module, try rows(value))) }
    return result
  }

  func blockDiagonal() throws(Failure) -> AdapterConfiguration.BlockDiagonal? {
    guard let value = value("use_bdlora"), value.bool != false else { return nil }
    guard let members = value.object else { throw wrong("use_bdlora", value, "an object") }
    let inner = Fields(members)
    return AdapterConfiguration.BlockDiagonal(
      count: try inner.whole("nblocks", 1...65536) ?? 1, modulesOfA: try inner.texts("target_modules_bd_a"),
      modulesOfB: try inner.texts("target_modules_bd_b"))
  }

  private func wrong(_ key: String, _ value: JSONValue, _ allowed: String) -> Failure {
    let found = value.number?.text.printable(limit: 40) ?? value.string.map { "'\($0.printable(limit: 40))'" }
    return Failure(.malformed, "'\(key)' is \(found ?? value.kind.rawValue), allowed is \(allowed)")
  }
}
