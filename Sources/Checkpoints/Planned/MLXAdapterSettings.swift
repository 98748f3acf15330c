import Adapters
import Bytes
import JSON

/// `adapter_config.json` of mlx-lm: the command line of its training, of which this is what the tensors do not say.
struct MLXAdapterSettings {
  let scale: Double
  /// Nil where the tensors alone say it.
  let rank: Int?
  let usesDoRA: Bool
  /// The model that was trained on, as it was named then.
  let baseModel: String
  let warnings: [Warning]

  init(_ file: InputFile) throws(Failure) {
    let json = try JSONValue(parsing: file.contents(limit: AdapterConfiguration.sizeLimit), .python, file: file.name)
    do throws(Failure) { try self.init(json, file.name) } catch { throw error.located(file: file.name) }
  }

  private init(_ json: JSONValue, _ file: String) throws(Failure) {
    guard json.object != nil else { throw Failure(.malformed, "is not a JSON object") }
    let kind = json["fine_tune_type"] ?? "lora"
    switch kind.string {
    case "lora", "dora": usesDoRA = kind.string == "dora"
    case "full":
      throw Failure(
        .unsupported,
        "fine_tune_type is 'full': beside it are whole weights of the layers that were trained, not an adapter; "
          + "mlx_lm.fuse puts them into the model")
    default:
      let found = kind.string.map { "'\($0.printable(limit: 64))'" } ?? kind.kind.rawValue
      throw Failure(.unsupported, "fine_tune_type is \(found), known are lora and dora")
    }
    guard let parameters = json["lora_parameters"]?.object else {
      throw Failure(.malformed, "has no 'lora_parameters', which say the scale: is it one of mlx-lm?")
    }
    guard let scale = parameters["scale"], !scale.isNull else {
      let hint =
        parameters["alpha"] == nil ? "" : ", only 'alpha', which mlx-lm does not take: scale would be alpha/rank"
      throw Failure(.malformed, "lora_parameters: has no 'scale'\(hint)")
    }
    guard let value = scale.double, value >= 0 else {
      throw Failure(.malformed, "lora_parameters: 'scale' is no number from 0 up")
    }
    self.scale = value
    if let rank = parameters["rank"], !rank.isNull {
      guard let value = rank.int, (1...Int(Int32.max)).contains(value) else {
        throw Failure(.malformed, "lora_parameters: 'rank' is no whole number from 1 up")
      }
      self.rank = value
    } else {
      rank = nil
    }
    baseModel = json["model"]?.string ?? ""
    warnings =
      parameters["alpha"] == nil
      ? [] : ["\(list: [file]): lora_parameters has 'alpha' too; as mlx-lm does, 'scale' alone is taken"]
  }
}
