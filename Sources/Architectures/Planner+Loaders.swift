extension Planner {
  /// Lists modules that transformers 4 takes for linear besides: routers, subclasses, experts that are modules of
  /// their own, and modules under the checkpoint's names, which are those of its classes. Without an entry it makes
  /// 4-bit modules of them, and does not find their statistics.
  ///
  /// - Parameter name: of a tensor that stays as it is.
  mutating func alsoSkip(_ placement: Placement, _ name: [UInt8]) {
    guard let kind = placement.kind, let module = Placer.module(of: name) else { return }
    if kind == .expert {
      expertModules[Self.stack(of: module), default: []].insert(module)
    } else if kind.isLinear || kind == .linearSubclass || kind == .router {
      skipped.insert(module)
    }
  }

  /// The module that holds all experts of a layer: one entry does for them all, and a loader compares every module of
  /// the model with every entry.
  private static func stack(of expert: [UInt8]) -> [UInt8] {
    let parts = expert.components
    let star = UInt8(ascii: "*")
    guard let last = parts.lastIndex(where: { Array($0).generalised.contains(star) }), last > 0 else { return expert }
    return Array(parts[..<last].joined(separator: [UInt8(ascii: ".")]))
  }

  /// A layer's experts are listed by the module that holds them all; by themselves where that holds other linear layers
  /// too, as a layer does whose stacked experts lie in modules of their own.
  mutating func skipExperts() {
    let plain = expertModules.keys.filter { !$0.isEmpty }
    // As a rule none does harm, and one look at the model tells.
    let isHarmless = !matchesQuantized(plain)
    for (stack, experts) in expertModules {
      if !stack.isEmpty, isHarmless || !matchesQuantized([stack]) {
        skipped.insert(stack)
      } else {
        skipped.formUnion(experts)
      }
    }
  }

  /// A base model is also loaded below a head: what stays as it is has another path then, and the head, which the
  /// checkpoint does not have, must not become a 4-bit module without values.
  mutating func skipHeads(ofBase architecture: String, _ rule: ClassRule) {
    let heads = RuleText.embedded.heads(ofBase: architecture)
    if heads.isEmpty { return }
    // Classes with different heads may hold the same base under different names.
    let prefixes = Set(RuleText.embedded.classes(aboveBase: architecture).map(\.prefix) + [rule.prefix])
    for path in skipped {
      for prefix in prefixes where !prefix.isEmpty { skipped.insert(prefix + [UInt8(ascii: ".")] + path) }
    }
    for head in heads where SkipMatcher.isPlain(head) && !matchesQuantized([head]) { skipped.insert(head) }
  }

  /// Linear layers of the class that the checkpoint lacks, such as the pooler of a model that was saved from below a
  /// head: the loader gives them new values, unless it has made 4-bit modules of them. Of whole parts that are lacking,
  /// the part is listed.
  mutating func skipLacking(_ rule: ClassRule, _ placements: [Placement]) {
    let dot = [UInt8(ascii: ".")]
    var stored: Set<[UInt8]> = []
    for module in Set(placements.flatMap { ([$0.module].compactMap(\.self) + $0.convertedModules).map(\.generalised) })
    {
      let parts = module.components
      for count in parts.indices { stored.insert(Array(parts[...count].joined(separator: dot))) }
    }
    var lacking: Set<[UInt8]> = []
    for (path, kind) in rule.kinds where kind.isLinear {
      let parts = path.components
      let ancestors = parts.indices.lazy.map { Array(parts[...$0].joined(separator: dot)) }
      // What lies in numbered layers depends on the configuration: those that are there have all that they should.
      guard let first = ancestors.first(where: { !stored.contains($0.generalised) }) else { continue }
      if SkipMatcher.isPlain(first) { lacking.insert(first) }
    }
    for path in lacking where !matchesQuantized([path]) { skipped.insert(path) }
  }

  /// Whether entries would keep a module as it is that is to be quantized.
  private func matchesQuantized(_ entries: [[UInt8]]) -> Bool {
    [LoaderTarget.transformers5, .transformers4].contains { target in
      var matcher = SkipMatcher(target: target)
      for entry in entries { matcher.insert(entry) }
      return dispositions.indices.contains { index in
        guard !dispositions[index].isKept else { return false }
        return matcher.matches(modules[index] ?? names[index])
          || Placer.module(of: names[index]).map(matcher.matches) == true
      }
    }
  }
}

extension RuleText {
  /// Names of heads in transformers 4 that transformers 5 renames.
  private static let formerHeads = ["embed_out"].map { Array($0.utf8) }

  /// Paths of the linear layers that the classes with a head put beside a base model: of `LlamaModel`, `lm_head`,
  /// `score` and `qa_outputs`. Of a numbered stack it is the module that holds it: the `decoder.decoder_layers` of
  /// `ViTMAEForPreTraining`.
  func heads(ofBase architecture: String) -> [[UInt8]] {
    var heads: Set<[UInt8]> = []
    for rule in classes(aboveBase: architecture) {
      let base = rule.prefix + [UInt8(ascii: ".")]
      for (path, kind) in rule.kinds where kind.isLinear && !path.starts(with: base) {
        let head = path.components.prefix { !$0.contains(UInt8(ascii: "*")) }
        if !head.isEmpty { heads.insert(Array(head.joined(separator: [UInt8(ascii: ".")]))) }
      }
      for former in Self.formerHeads {
        let renamed = Placer(rule: rule, names: []).renamed(former + ".weight".utf8).name
        if Placer.module(of: renamed).map(heads.contains) == true { heads.insert(former) }
      }
    }
    return heads.sorted { $0.lexicographicallyPrecedes($1) }
  }

  /// The classes that put a head beside a base model.
  func classes(aboveBase architecture: String) -> [ClassRule] {
    let ownEndings = ["EncoderModel", "Model", "Encoder"]
    guard let ending = ownEndings.first(where: architecture.hasSuffix), architecture.count > ending.count
    else { return [] }
    let family = architecture.dropLast(ending.count)
    let endings = [
      "For", "LMHeadModel", "WithLMHeadModel", "DoubleHeadsModel", "ModelWithLMHead", "ModelWithProjection",
    ]
    var tails = (ending == "Encoder" ? ["Decoder"] : endings).map { Array((family + $0).utf8) }
    // `Gemma3ForCausalLM` has a `Gemma3TextModel`: the plain name is that of the model that also sees.
    if family.hasSuffix("Text") { tails.append(Array((family.dropLast("Text".count) + "ForCausalLM").utf8)) }
    return classNames.filter { name in tails.contains(where: name.starts) }
      .compactMap { ClassRule(architecture: String(decoding: $0, as: UTF8.self), text: self) }
      .filter { !$0.prefix.isEmpty }
  }
}
