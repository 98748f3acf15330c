import Architectures
import Bytes
import Checkpoints
import Commands
import JSON
import PackedWeights
import Quantization
import Tensors

/// Checks of conditions on a 4-bit checkpoint that the trainers' loaders assume and do not check themselves.
struct ContractCheck {
  let checkpoint: any StoredCheckpoint
  let logical: LogicalTensors

  func run(_ result: inout Verify.Result) throws(Failure) {
    let weights = logical.items.compactMap(\.fourBit)
    for weight in weights { try checkValues(weight, &result) }
    if let values = checkpoint.files.gguf { try checkArchitecture(of: values, &result) }
    guard let directory = checkpoint.directory, directory.contains(StoredModel.configName) else {
      if !weights.isEmpty { result.notChecked.append("the skip list: there is no config.json") }
      return
    }
    let file = try directory.open(StoredModel.configName)
    let config = try JSONValue(
      parsing: file.contents(limit: StoredModel.configLimit), .python, file: StoredModel.configName)
    checkSettings(config, weights, &result)
    checkSkipList(config, &result)
    checkContents(config, &result)
  }

  private func checkArchitecture(of values: StoredGGUF, _ result: inout Verify.Result) throws(Failure) {
    do throws(Failure) { try Checkpoints.checkArchitecture(values) } catch {
      if error.code != .malformed { throw error }
      result.add(error)
    }
  }

  // MARK: - Names and shapes

  private func checkContents(_ config: JSONValue, _ result: inout Verify.Result) {
    guard config.object != nil, !checkpoint.isAdapter else { return }
    let infos = logical.items.map(logical.info)
    let wrapped = WrapperNames(infos)
    if let wrapped {
      let first = zip(infos, wrapped.names).first { $0.name != $1 }?.0.name
      result.add(
        tensor: first,
        "and \(wrapped.count - 1) other names have words of training wrappers (\(wrapped.text)), which no loader knows; "
          + "'nibble convert' takes them off")
    }
    let report = Contents(logical: logical, config: config).report(names: wrapped?.names)
    for fault in report.faults {
      let name = TensorName(fault.tensor)
      result.add(file: checkpoint.index(of: name).map { checkpoint.location(of: $0).file }, tensor: name, fault.problem)
    }
    if report.faultCount > report.faults.count {
      result.add("\(counted(report.faultCount - report.faults.count, "more fault")) of these kinds")
    }
    result.warnings += report.warnings()
  }

  // MARK: - Statistics

  private func checkValues(_ weight: FourBitWeight, _ result: inout Verify.Result) throws(Failure) {
    let name = weight.info.name
    let file = checkpoint.location(of: weight.codes).file
    func floats(_ index: Int) throws(Failure) -> [Float] {
      let bytes = try checkpoint.bytes(of: index)
      return stride(from: 0, to: bytes.count - 3, by: 4).map { at in
        Float(bitPattern: (0..<4).reduce(UInt32(0)) { $0 | UInt32(bytes[at + $1]) << (8 * UInt32($1)) })
      }
    }
    if let nested = weight.nestedAbsmax, let map = weight.nestedQuantMap {
      if let bad = try floats(nested).firstIndex(where: { !$0.isFinite || $0 < 0 }) {
        result.add(file: file, tensor: name, "nested_absmax \(bad) is not a finite positive number")
      }
      let values = try floats(map)
      if values != DoubleQuantization.map, values != DoubleQuantization.mapOfProductsRounded {
        result.add(file: file, tensor: name, "nested_quant_map is not the signed dynamic map of bitsandbytes")
      }
    } else if let bad = try floats(weight.absmax).firstIndex(where: { !$0.isFinite }) {
      // Loaders multiply with a negative one, too, which a search for the best may find.
      result.add(file: file, tensor: name, "absmax \(bad) is not a finite number")
    }
    if checkpoint.tensors[weight.quantMap].type == .f32, try floats(weight.quantMap) != weight.state.code.levels {
      result.add(file: file, tensor: name, "quant_map is not that of \(weight.state.code.rawValue.uppercased())")
    }
    result.bytesChecked += weight.parts.reduce(0) { $0 + ($1 == weight.codes ? 0 : checkpoint.tensors[$1].byteCount) }
  }

  // MARK: - config.json

  private func checkSettings(_ config: JSONValue, _ weights: [FourBitWeight], _ result: inout Verify.Result) {
    let name = StoredModel.configName
    guard let settings = config["quantization_config"], !settings.isNull else {
      if let first = weights.first {
        result.add(file: name, tensor: first.info.name, "is a 4-bit weight, but there is no quantization_config")
      }
      return
    }
    if let method = settings["quant_method"]?.string, method != "bitsandbytes" {
      if weights.isEmpty { return }
      return result.add(file: name, "quant_method is '\(method)', but the weights are those of bitsandbytes")
    }
    if weights.isEmpty { return }
    if settings["load_in_4bit"]?.bool != true {
      result.add(file: name, "load_in_4bit is not true: nothing loads in 4 bits")
    }
    let defaults = (type: "fp4", nested: false, storage: "uint8")
    let type = settings["bnb_4bit_quant_type"]?.string ?? defaults.type
    let nested = settings["bnb_4bit_use_double_quant"]?.bool ?? defaults.nested
    let storage = settings["bnb_4bit_quant_storage"]?.string ?? defaults.storage
    for weight in weights {
      let tensor = weight.info.name
      if weight.state.code.rawValue != type {
        result.add(file: name, tensor: tensor, "is \(weight.state.code.rawValue), bnb_4bit_quant_type says \(type)")
      }
      if (weight.state.nestedOffset != nil) != nested {
        result.add(
          file: name, tensor: tensor,
          "is stored \(nested ? "without" : "with") double quantization, bnb_4bit_use_double_quant says \(nested)")
      }
      let stored = checkpoint.tensors[weight.codes].type
      let expected = Quantize.Storage(rawValue: storage)?.elementType
      if stored != expected {
        result.add(
          file: name, tensor: tensor, "holds its codes as \(stored.name), bnb_4bit_quant_storage says \(storage)")
      }
    }
    if settings["bnb_4bit_compute_dtype"]?.string == nil {
      result.warnings.append("config.json: there is no bnb_4bit_compute_dtype, so the loader computes in float32")
    }
  }

  private func checkSkipList(_ config: JSONValue, _ result: inout Verify.Result) {
    guard let settings = config["quantization_config"], settings["load_in_4bit"]?.bool == true else { return }
    for fault in Contents(logical: logical, config: config).skipListFaults() {
      result.add(file: StoredModel.configName, tensor: TensorName(fault.tensor), fault.problem)
    }
    guard let list = settings["llm_int8_skip_modules"], !list.isNull else {
      if logical.hasFourBitWeights {
        result.notChecked.append("the skip list: there is none, the loader's own default holds")
      }
      return
    }
    guard let entries = list.array?.map(\.string), !entries.contains(nil) else {
      return result.add(file: StoredModel.configName, "llm_int8_skip_modules is not a list of strings")
    }
    let skipped = SkipList(entries.compactMap(\.self))
    guard skipped.patterns.isEmpty else {
      return result.notChecked.append("the skip list: '\(skipped.patterns[0])' is a regular expression")
    }
  }
}
