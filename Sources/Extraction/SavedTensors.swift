import Adapters
import Architectures
import Bytes
import Checkpoints
import Comparison
import Tensors

/// The other differences, sorted into those that an adapter can hold whole and those that it cannot.
struct SavedTensors: Sendable {
  /// A tensor of the tuned model that goes into the adapter.
  struct Saved: Sendable {
    /// The tensor's name in the adapter.
    var key: String
    /// The position among the pairs.
    var position: Int
    var relative: Double?
  }

  struct Missing: Sendable {
    var position: Int
    var relative: Double?
    /// The reason, worded to follow the name.
    var reason: String
  }

  static let notAsked = "only --save-rest saves it"

  private(set) var saved: [Saved] = []
  private(set) var missing: [Missing] = []
  /// The modules' paths for `modules_to_save`.
  private(set) var modules: Set<String> = []
  private(set) var hasBiases = false
  /// The saved input embedding is the output embedding too.
  private(set) var savesTied = false
  private(set) var warnings: [Warning] = []

  /// - Parameters:
  ///   - savesRest: without it nothing is saved.
  ///   - adapted: paths of the modules that have factors.
  init(
    _ pair: ExtractPair, _ plan: ExtractPlan, _ changes: ExtractChanges, _ names: ModuleNames, savesRest: Bool,
    adapted: Set<String>
  ) {
    for change in changes.excluded {
      missing.append(Missing(position: change.position, relative: change.relative, reason: "--target leaves it out"))
    }
    var relatives: [Int: Double] = [:]
    for change in changes.others { relatives[change.position] = change.relative }
    var whole: Set<String> = []
    for change in changes.others {
      let parameter = pair.place(change.position).parameter
      let (path, name) = Self.split(parameter)
      let isBias = name == "bias" && plan.linearPaths.contains(path)
      let problem =
        Self.problem(pair, change.position) ?? (isBias ? nil : Self.problem(names, path, name))
        ?? (savesRest ? nil : Self.notAsked)
      if let problem {
        missing.append(Missing(position: change.position, relative: change.relative, reason: problem))
      } else if isBias {
        let key = adapted.contains(path) ? "\(path).base_layer.bias" : parameter
        saved.append(Saved(key: key, position: change.position, relative: change.relative))
        hasBiases = true
      } else {
        whole.insert(path)
      }
    }
    addModules(whole, pair, plan, relatives)
    if let first = plan.resized.sorted().first(where: { position in saved.contains { $0.position == position } }) {
      let rows = pair.tensors.infos(first).b.shape[0]
      warnings.append(
        "the vocabulary has \(rows) rows: call resize_token_embeddings(\(rows)) on the base before PEFT loads the adapter"
      )
    }
  }

  /// PEFT loads a saved module only with all of its parameters.
  private mutating func addModules(
    _ paths: Set<String>, _ pair: ExtractPair, _ plan: ExtractPlan, _ relatives: [Int: Double]
  ) {
    modules = paths
    for position in plan.others {
      let parameter = pair.place(position).parameter
      guard paths.contains(Self.split(parameter).path) else { continue }
      saved.append(Saved(key: parameter, position: position, relative: relatives[position]))
      guard pair.isTied, EmbeddingNames.isInput(parameter) else { continue }
      savesTied = true
      saved.append(
        Saved(key: pair.names.outputEmbedding + ".weight", position: position, relative: relatives[position]))
    }
  }

  private static func split(_ parameter: String) -> (path: String, name: String) {
    guard let dot = parameter.lastIndex(of: ".") else { return ("", parameter) }
    return (String(parameter[..<dot]), String(parameter[parameter.index(after: dot)...]))
  }

  /// Why a tensor cannot be saved under its own name.
  private static func problem(_ pair: ExtractPair, _ position: Int) -> String? {
    let tuned = pair.tensors.infos(position).b
    guard [.f16, .bf16, .f32].contains(tuned.type), !pair.tuned.logical.isPacked(pair.tensors.common[position].b)
    else {
      return "an adapter holds F32, BF16 and F16 only"
    }
    switch pair.disposition(position) {
    case .keep(.expert): return "it belongs to stacked experts"
    case .keep(.converted): return "the loader makes another parameter of it"
    default: return pair.place(position).part == nil ? nil : "it belongs to stacked experts"
    }
  }

  private static func problem(_ names: ModuleNames, _ path: String, _ name: String) -> String? {
    guard names.isLeaf(path) else { return "it is not the weight or bias of a module of its own" }
    return names.entries(for: [path], .ending) == nil ? "the name of its module ends that of another one" : nil
  }
}
