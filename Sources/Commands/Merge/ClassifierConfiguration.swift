import Adapters
import Bytes
import Checkpoints
package import JSON

extension MergePlan.Classifier {
  /// Members of `config.json` that describe a classifier's labels.
  private static let members = ["id2label", "label2id", "problem_type"]

  /// Makes `config.json` that of the class with the head. Its labels' names are those of a `config.json` beside the
  /// adapter, else LABEL_0 and so on, as transformers calls them.
  package func apply(to config: inout JSONValue) {
    config["architectures"] = [.string(architecture)]
    for key in Self.members + ["num_labels"] { config[key] = nil }
    guard let labels else { return }
    if let own = ownConfiguration, own["id2label"]?.object?.count == labels {
      for key in Self.members where own[key] != nil { config[key] = own[key] }
      if config["pad_token_id"]?.int == nil, let token = own["pad_token_id"], token.int != nil {
        config["pad_token_id"] = token
      }
      return
    }
    // Two is what every configuration has that says nothing.
    if labels == 2 { return }
    let numbers = (0..<labels).map(String.init)
    config["id2label"] = .object(JSONObject(distinct: numbers.map { ($0, .string("LABEL_\($0)")) }))
    config["label2id"] = .object(
      JSONObject(distinct: numbers.enumerated().map { ("LABEL_\($1)", .number($0)) }))
  }

  /// Trainers save the model's configuration beside the adapter.
  private var ownConfiguration: JSONValue? {
    guard let directory = adapter.directory, directory.contains(StoredModel.configName),
      let bytes = try? directory.open(StoredModel.configName).contents(limit: StoredModel.configLimit)
    else { return nil }
    return try? JSONValue(parsing: bytes, .python, file: StoredModel.configName)
  }
}
