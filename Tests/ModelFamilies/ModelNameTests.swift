import FamilySupport
import GGUF
import JSON
import Testing

@testable import ModelFamilies

/// Names and cards, compared with what gguf-py 0.19's `Metadata` and PyYAML 6.0.3 make of them.
@Suite struct ModelNameTests {
  @Test(
    arguments: [
      ("Mistral-7B-Instruct-v0.2", "Mistral", "Instruct", "v0.2", "7B"),
      ("Mixtral-8x7B-Instruct-v0.1", "Mixtral", "Instruct", "v0.1", "8x7B"),
      ("bloom-7b1", "bloom", nil, nil, "7.1B"),
      ("stablelm-2-zephyr-1_6b", "stablelm-2-zephyr", nil, nil, "1.6B"),
      ("Nous-Hermes-2-Mixtral-8x7B-DPO", "Nous-Hermes-2-Mixtral", "DPO", nil, "8x7B"),
      ("model-fp16", nil, nil, nil, nil),
      ("gpt2", nil, nil, nil, nil),
      ("x-small-2M", "x-small", nil, nil, "2M"),
      ("--", nil, nil, nil, nil),
      ("", nil, nil, nil, nil),
    ] as [(String, String?, String?, String?, String?)])
  func parts(name: String, basename: String?, finetune: String?, version: String?, size: String?) {
    let parts = ModelName(name, total: 0)
    #expect(parts.basename == basename)
    #expect(parts.finetune == finetune)
    #expect(parts.version == version)
    #expect(parts.sizeLabel == size)
  }

  /// A size that is far from the model's is a context length.
  @Test func sizesFarFromTheModels() {
    #expect(ModelName("Llama-3-8B-262k", total: 8_000_000_000).sizeLabel == "8B")
    #expect(ModelName("Llama-3-8B-262K", total: 8_000_000_000).finetune == "262k")
    #expect(ModelName("Llama-3-8B", total: 40_000).sizeLabel == nil)
    #expect(ModelName("Llama-3-0x8B", total: 40_000).sizeLabel == "0x8B")
  }

  @Test(arguments: [
    ("tiny-llama-v2", "Tiny Llama v2"), ("Qwen2.5-coder", "Qwen2.5 Coder"), ("gpt2xl", "Gpt2Xl"),
    ("7b-chat", "7b Chat"),
    ("don't", "Don'T"), ("über_modell", "Über_Modell"), ("iter2", "Iter2"), ("A  b", "A B"), ("", ""),
  ])
  func titles(name: String, title: String) {
    #expect(ModelName.title(name) == title)
  }

  /// `gguf.size_label(n, n, 0, 0)`
  @Test(arguments: [
    (1, "0.00K"), (44, "0.04K"), (999, "1.0K"), (9_949, "10K"), (9_499, "9.5K"), (9_501, "10K"), (12_345, "12K"),
    (999_499, "999K"), (1_000_000, "1000K"), (1_000_001, "1.0M"), (1_250_000, "1.2M"), (1_350_000, "1.3M"),
    (6_738_415_616, "6.7B"), (13_015_864_320, "13B"), (999_999_999_999, "1000B"), (1_500_000_000_000, "1.5T"),
  ])
  func sizes(count: Int, label: String) throws {
    let weight = PlannedWeight(name: "token_embd.weight", shape: [count], source: .stored(0))
    #expect(try ParameterCounts([weight]).label == label)
  }

  @Test func cards() {
    let card = ModelCard(
      Array(
        """
        ---
        # a comment
        name: a name
          on two lines
        license: [mit, "apache, 2"]
        author: null
        version: '1''2'
        url: "a \\"b\\""   # why
        description: >-
          folded
          text

          more
        notes: |
          kept
            as it is
        tags:
        - one
        - "two: three"
        language:
          - en
          - "no"
        base_model:
        - name: N
          author: A
        - o/p
        model-index:
        - name: x
          results:
          - task: y
        empty:
        ---
        name: not this
        """.utf8))
    #expect(card["name"] == .text("a name on two lines"))
    #expect(card["license"] == .list([.text("mit"), .text("apache, 2")]))
    #expect(card["author"] == .null)
    #expect(card["version"] == .text("1'2"))
    #expect(card["url"] == .text("a \"b\""))
    #expect(card["description"] == .text("folded text\nmore"))
    #expect(card["notes"] == .text("kept\n  as it is\n"))
    #expect(card["tags"] == .list([.text("one"), .text("two: three")]))
    #expect(card["language"] == .list([.text("en"), .text("no")]))
    #expect(card["base_model"] == .list([.mapping(["name": "N", "author": "A"]), .text("o/p")]))
    #expect(card["empty"] == .null)
    #expect(card["absent"] == nil)
    #expect(ModelCard(Array("name: x".utf8))["name"] == nil)
    #expect(ModelCard([])["name"] == nil)
  }

  @Test func recommendationsForSampling() throws {
    let family = try #require(Family.all.first { $0.name == "llama" })
    let model = try FamilyModel(family)
    func plan(_ file: String) throws -> GGUFModelPlan { try model.plan(files: ["generation_config.json": file]) }
    let pairs = try plan(#"{"top_k": 20, "temperature": 1, "repetition_penalty": 1.5, "min_p": null}"#).metadata
    #expect(
      pairs.map(\.key).filter { $0.contains("sampling") }.map { String($0.dropFirst(17)) } == [
        "top_k", "temp", "penalty_repeat",
      ])
    for bad in [#"{"top_k": 2.5}"#, #"{"top_k": 3000000000}"#, #"{"temperature": "hot"}"#, #"{"top_p": 1e300}"#] {
      #expect(failure { try plan(bad) }?.code == .malformed, "\(bad)")
    }
    // What Python writes for what JSON cannot say is a number of GGUF like any other.
    let words = try plan(#"{"temperature": Infinity, "top_p": NaN, "typical_p": -Infinity, "note": "\ud800"}"#)
    #expect(words.warnings.isEmpty)
    let metadata = GGUFMetadata(words.metadata)
    #expect(try metadata.number("general.sampling.temp") == .infinity)
    #expect(try metadata.number("general.sampling.top_p")?.isNaN == true)
    let back = JSONValue.object(try SamplingMetadata.configuration(metadata))
    #expect(back.text(.compact) == #"{"top_p":NaN,"temperature":Infinity}"#)
    #expect(
      failure { try plan(#"{"top_k": Infinity}"#) }?.message == "top_k: found NaN or Infinity, expected a whole number")
    let damaged = try plan("{")
    #expect(damaged.warnings.count == 1)
    #expect(!damaged.metadata.contains { $0.key.contains("sampling") })
  }
}
