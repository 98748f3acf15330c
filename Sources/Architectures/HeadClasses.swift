/// The classes that hold the same base model as a causal one and a head for another task, by PEFT's name of the task.
///
/// - Returns: those alone that are known to name their base model as this class does.
public func headClasses(beside architecture: String?) -> [String: String] {
  guard let architecture, let own = ClassRule(architecture: architecture),
    let ending = ["ForCausalLM", "LMHeadModel"].first(where: architecture.hasSuffix)
  else { return [:] }
  let stem = architecture.dropLast(ending.count)
  let endings = [
    "SEQ_CLS": "ForSequenceClassification", "TOKEN_CLS": "ForTokenClassification",
    "QUESTION_ANS": "ForQuestionAnswering",
  ]
  // The plain name of a model that also sees is that of the whole.
  return endings.compactMapValues { ending in
    ["\(stem)Text\(ending)", "\(stem)\(ending)"].first { name in
      ClassRule(architecture: name).map { $0.prefix == own.prefix } ?? false
    }
  }
}
