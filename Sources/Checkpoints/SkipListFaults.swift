package import Architectures
import JSON
import Tensors

extension Contents {
  /// Modules that break the loading of a 4-bit checkpoint: a quantized one that the skip list names, or a linear one
  /// in floating point that it does not.
  ///
  /// Without a list, when the loader's own default holds, a module in floating point is one that is quantized in
  /// another layer.
  package func skipListFaults() -> [ContentsReport.Fault] {
    guard let settings = config["quantization_config"], settings["load_in_4bit"]?.bool == true else { return [] }
    let stated = settings["llm_int8_skip_modules"]
    let list = stated?.isNull == false ? stated?.array?.map(\.string) : nil
    let entries = list?.compactMap(\.self)
    if entries?.count != list?.count { return [] }
    let skipped = entries.map { SkipList($0) }
    if skipped?.patterns.isEmpty == false { return [] }
    let plan = weightPlan
    var quantized: Set<String> = []
    if skipped == nil {
      for case (.packed, let module?) in zip(logical.items, plan.modules) { quantized.insert(module.withoutNumbers) }
    }
    var faults: [ContentsReport.Fault] = []
    for (item, module) in zip(logical.items, plan.modules) {
      guard let module else { continue }
      let problem: String
      switch (item, skipped?.matches(module)) {
      case (.packed, true):
        problem = "is a 4-bit weight, but llm_int8_skip_modules leaves '\(module)' in floating point"
      case (.plain, false):
        problem = "is in floating point, but llm_int8_skip_modules does not list '\(module)'"
      case (.plain, nil) where quantized.contains(module.withoutNumbers):
        problem = "is in floating point, but in other layers it is in 4 bits, and no llm_int8_skip_modules names it"
      default: continue
      }
      faults.append(.init(tensor: logical.info(item).name.string, problem: problem))
    }
    return faults
  }
}

extension String {
  /// A module's path with `*` for each number.
  fileprivate var withoutNumbers: String {
    split(separator: ".", omittingEmptySubsequences: false).map { $0.allSatisfy(\.isNumber) ? "*" : $0 }
      .joined(separator: ".")
  }
}
