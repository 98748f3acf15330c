public import Bytes
public import Tensors

/// What a checkpoint lacks, or has otherwise than the model class that is to load it.
public struct ContentsReport: Sendable, Equatable {
  public struct Fault: Sendable, Equatable {
    public var tensor: String
    public var problem: String

    public init(tensor: String, problem: String) {
      self.tensor = tensor
      self.problem = problem
    }
  }

  public init() {}

  /// What no loader takes: the first few of each kind.
  public internal(set) var faults: [Fault] = []
  /// All of them, those that are not in `faults` too.
  public internal(set) var faultCount = 0
  /// One line each, no full stop.
  public internal(set) var warnings: [Warning] = []
  /// Tensors that are no parameter of the class: loaders leave them out.
  public internal(set) var unused: [String] = []

  static let faultLimit = 8

  public mutating func add(_ fault: Fault) {
    faultCount += 1
    if faults.count < Self.faultLimit { faults.append(fault) }
  }
}

/// Holds a checkpoint's names and shapes to its model class, as far as class and configuration tell them.
///
/// What loaders tolerate is accepted: tied embeddings stored once or twice, buffers, a base model without its head, a
/// language model without its towers, layers beyond those that the configuration counts.
///
/// - Parameters:
///   - isQuantized: for each tensor, whether it is in 4 bits; its shape is then that of the weight that it stands for.
///   - hasOwnCode: the model brings the code of its class along.
///   - isUneven: config.json has members that give some layers what others have not; what a layer lacks is a warning then.
///   - member: a whole number of config.json, members of members with dots.
public func checkContents(
  _ tensors: [TensorInfo], isQuantized: [Bool], configuration: ModelConfiguration, hasOwnCode: Bool,
  isUneven: Bool = false, member: (String) -> Int?
) -> ContentsReport {
  guard !tensors.isEmpty else { return ContentsReport() }
  var report = ContentsReport()
  guard let architecture = configuration.architecture, let rule = ClassRule(architecture: architecture) else {
    if let warning = layerWarning(tensors, besides: 0) { report.warnings.append(warning) }
    return report
  }
  guard let contents = ClassContents(architecture: architecture, rule: rule) else {
    let placer = Placer(rule: rule, names: tensors.map { Array($0.name.string.utf8) })
    let isKnown = tensors.contains { placer.place(Array($0.name.string.utf8)).kind != nil }
    if !isKnown, !hasOwnCode, rule.kinds.values.contains(where: \.isLinear), tensors.contains(where: \.isMatrix) {
      report.add(
        .init(
          tensor: tensors[0].name.string, problem: "is no parameter of \(architecture), nor is any other tensor here"))
    } else if let warning = layerWarning(tensors, besides: 0.5) {
      // Such classes may have layers of several kinds.
      report.warnings.append(warning)
    }
    return report
  }
  var check = ContentsCheck(
    architecture: architecture, rule: rule, contents: contents, tensors: tensors, isQuantized: isQuantized)
  check.run(configuration, hasOwnCode: hasOwnCode, isUneven: isUneven, member: member)
  return check.report
}

/// Where nothing is known of a class, the layers of a stack are held to each other.
///
/// - Parameter share: of a stack's layers; what no more than that have says nothing of the others.
func layerWarning(_ tensors: [TensorInfo], besides share: Double) -> Warning? {
  // By stack and member, which layers have it.
  var stacks: [[UInt8]: [[UInt8]: Set<[UInt8]>]] = [:]
  var layers: [[UInt8]: Set<[UInt8]>] = [:]
  for tensor in tensors {
    let parts = Array(tensor.name.string.utf8).components
    guard let first = parts.firstIndex(where: \.isNumber), first > 0, first + 1 < parts.count else { continue }
    let dot = [UInt8(ascii: ".")]
    let stack = Array(parts[..<first].joined(separator: dot))
    let member = Array(parts[(first + 1)...].joined(separator: dot))
    stacks[stack, default: [:]][member, default: []].insert(Array(parts[first]))
    layers[stack, default: []].insert(Array(parts[first]))
  }
  var lacking: [String] = []
  for (stack, members) in stacks.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
    let all = layers[stack] ?? []
    for (member, there) in members.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) })
    where there.count < all.count && Double(there.count) > share * Double(all.count) {
      // The first layer by number that has it not.
      let first = all.subtracting(there).min {
        ($0.count, String(decoding: $0, as: UTF8.self)) < ($1.count, String(decoding: $1, as: UTF8.self))
      }
      guard let first else { continue }
      lacking.append(
        "'\(String(decoding: stack, as: UTF8.self)).\(String(decoding: first, as: UTF8.self))' has no "
          + "'\(String(decoding: member, as: UTF8.self))' (\(there.count) of \(all.count) have)")
    }
  }
  return lacking.isEmpty ? nil : "the layers do not have the same tensors: \(list: lacking)"
}
