public import Bytes
public import Tensors

/// The tensors that a checkpoint lacks, or has otherwise than the model class that is to load it.
public struct ContentsReport: Sendable, Equatable {
  public struct Fault: Sendable, Equatable {
    public var tensor: String
    public var problem: String

    fileprivate var isOfAbsence: Bool { problem.hasPrefix("is missing") }

    public init(tensor: String, problem: String) {
      self.tensor = tensor
      self.problem = problem
    }
  }

  public init() {}

  /// Faults with which no loader takes the checkpoint: the first few of each kind.
  public internal(set) var faults: [Fault] = []
  /// The number of all faults, those that are not in `faults` too.
  public internal(set) var faultCount = 0
  /// Warnings of one line each, no full stop.
  public internal(set) var warnings: [Warning] = []
  /// Tensors that are no parameter of the class: loaders leave them out.
  public internal(set) var unused: [String] = []

  static let faultLimit = 8

  public mutating func add(_ fault: Fault) {
    faultCount += 1
    // What is not there is told whatever else is wrong.
    let kind = fault.isOfAbsence
    if faults.count(where: { $0.isOfAbsence == kind }) < Self.faultLimit { faults.append(fault) }
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
///   - member: a whole number of config.json, members of members with dots; 1 and 0 for true and false of one that
///     turns biases on, negative for anything else that is stated.
public func checkContents(
  _ tensors: [TensorInfo], isQuantized: [Bool], configuration: ModelConfiguration, hasOwnCode: Bool,
  member: (String) -> Int?
) -> ContentsReport {
  guard !tensors.isEmpty else { return ContentsReport() }
  var report = ContentsReport()
  guard let architecture = configuration.architecture, let rule = ClassRule(architecture: architecture) else {
    if let warning = layerWarning(tensors.map { Array($0.name.string.utf8) }, .all) { report.warnings.append(warning) }
    return report
  }
  guard let contents = ClassContents(architecture: architecture, rule: rule) else {
    let placer = Placer(rule: rule, names: tensors.map { Array($0.name.string.utf8) })
    let isKnown = tensors.contains { placer.place(Array($0.name.string.utf8)).kind != nil }
    if !isKnown, !hasOwnCode, rule.kinds.values.contains(where: \.isLinear), tensors.contains(where: \.isMatrix) {
      report.add(
        .init(
          tensor: tensors[0].name.string, problem: "is no parameter of \(architecture), nor is any other tensor here"))
    } else if let warning = layerWarning(tensors.map { Array($0.name.string.utf8) }, .most) {
      report.warnings.append(warning)
    }
    return report
  }
  var check = ContentsCheck(
    architecture: architecture, rule: rule, contents: contents, tensors: tensors, isQuantized: isQuantized)
  check.run(configuration, hasOwnCode: hasOwnCode, member: member)
  return check.report
}
