import Foundation
import JSON
import TestSupport
import Testing

/// What `fit` says of cards, of lengths and of families.
extension FitTests {
  // MARK: - Cards

  /// The number named is enough, one less is not; nobody's is the least of all.
  @Test func cardsNeeded() throws {
    let path = try config()
    let one = try fit(path, ["--gpus", "8GB"])
    #expect(one["cardsNeeded"]?.int == 3)
    for name in ["qlora", "qlora-paged"] { #expect(try row(one, name)["cardsNeeded"]?.isNull == true) }
    let sharded = ["--zero-stage", "3"]
    for (name, options) in [("full", sharded), ("lora-bf16", sharded), ("qlora-fsdp", [])] {
      let number = try #require(row(fit(path, ["--gpus", "2x8GB"] + options), name)["cardsNeeded"]?.int)
      try #require(number > 2)
      #expect(try row(fit(path, ["--gpus", "\(number)x8GB"] + options), name)["fits"]?.bool == true)
      #expect(try row(fit(path, ["--gpus", "\(number - 1)x8GB"] + options), name)["fits"]?.bool == false)
      // Without a stage it is the same: what divides the most is told.
      if name != "qlora-fsdp" { #expect(try row(one, name)["cardsNeeded"]?.int == number) }
    }
    #expect(try row(fit(path), "qlora")["cardsNeeded"]?.int == 1)
    #expect(try fit(path)["cardsNeeded"]?.int == 1)
    #expect(try fit(path, ["--gpus", "100MiB"])["cardsNeeded"]?.isNull == true)
    let text = try Tool.run("fit", path, "--gpus", "8GB").output
    #expect(text.contains("\nqlora-fsdp takes 3 cards of 8.0 GB\n"))
    #expect(text.components(separatedBy: "; no strategy does, qlora-paged takes the least").count == 2)
    #expect(text.contains("\nfull with ZeRO-3 takes "))
  }

  /// Within a tenth of the plan on either side is close, and said so.
  @Test func closeOnes() throws {
    let path = try config()
    let total = try bytes(fit(path), "qlora", "total")
    for (percent, line) in [
      (112, "qlora fits a "), (108, "qlora just fits a "), (95, "qlora just does not fit a "),
      (89, "qlora does not fit "),
    ] {
      let card = "\(total / 100 * percent)B"
      let text = try Tool.run("fit", path, "--gpus", card).output
      #expect(text.contains("\n" + line), "\(text)")
      #expect(text.contains("\"just\": within the 10 % ") == text.contains(" just "))
      let row = try row(fit(path, ["--gpus", card]), "qlora")
      #expect(row["margin"]?.int == total / 100 * percent - total && row["fits"]?.bool == (percent > 100))
    }
  }

  @Test func require() throws {
    let path = try config()
    for (card, status) in [("24GiB", 0), ("8GB", 1), ("3x8GB", 0)] as [(String, Int32)] {
      let run = try Tool.run("fit", path, "--gpus", card, "--require")
      #expect(run.status == status && run.error == "")
      #expect(try run.output == Tool.run("fit", path, "--gpus", card).output)
      #expect(try Tool.run("fit", path, "--gpus", card, "--require", "--json").status == status)
      #expect(try Tool.run("fit", path, "--gpus", card).status == 0)
    }
    try refuse(66, "nowhere", directory.path("nowhere"), ["--require"])
  }

  /// No more tokens are promised than the model was made for, whatever the memory.
  @Test func positions() throws {
    let path = try config(["max_position_embeddings": "4096"])
    let report = try fit(path)
    #expect(try row(report, "qlora")["longestSequence"]?.int == 4096)
    #expect(try row(fit(path, ["--gpus", "13GiB"]), "qlora")["longestSequence"]?.int ?? 9999 < 4096)
    #expect(try row(fit(path, ["--seq-len", "4096"]), "qlora")["fits"]?.bool == true)
    let beyond = try Tool.run("fit", path, "--seq-len", "4097", "--json")
    #expect(beyond.status == 0 && beyond.warnings.count == 1 && beyond.error.contains("beyond the 4096"))
    let found = try row(#require(parse(beyond.output)), "qlora")
    #expect(found["fits"]?.bool == false && found["largestBatch"]?.int == 0 && found["longestSequence"]?.int == 4096)
    #expect(try Tool.run("fit", path, "--seq-len", "4097", "--require").status == 1)
    // The length that is taken where none is asked for is not beyond a short model's.
    let short = try config(["max_position_embeddings": "1024"])
    let run = try Tool.run("fit", short)
    #expect(run.error == "" && run.output.contains(", sequence 1024;") && run.output.contains("qlora fits "))
  }

  // MARK: - Families

  @Test func unknownFamilies() throws {
    let message = "fit does not know BertModel; it knows Llama, Mistral, "
    try refuse(69, message, try config(["architectures": "[\"BertModel\"]", "model_type": "\"bert\""]))
    let nameless = try config(["architectures": nil, "model_type": "\"bert\""])
    try refuse(69, "fit does not know model type 'bert'; it knows ", nameless)
    #expect(try fit(config(["architectures": nil]))["parameters"]?.int == 13_016_028_160)
  }

  /// Experts stay in 16 bits: only what is around them shrinks. PEFT adapts Mixtral's.
  @Test func mixtral() throws {
    let path = try config([
      "architectures": "[\"MixtralForCausalLM\"]", "model_type": "\"mixtral\"", "hidden_size": "4096",
      "num_hidden_layers": "32", "num_attention_heads": "32", "num_key_value_heads": "8",
      "intermediate_size": "14336", "vocab_size": "32000", "num_local_experts": "8", "num_experts_per_tok": "2",
    ])
    let report = try fit(path)
    #expect(report["parameters"]?.int == 46_702_792_704)
    let experts = 32 * 8 * 3 * 4096 * 14336
    #expect(try bytes(report, "qlora", "weights") > 2 * experts)
    let attention = 32 * 64 * (2 * (4096 + 4096) + 2 * (4096 + 1024))
    let router = 32 * 64 * (4096 + 8)
    let stacks = 32 * 64 * 8 * (2 * (4096 + 2 * 14336) + 14336 + 4096)
    #expect(try bytes(report, "qlora", "adapter") == 4 * (attention + router + stacks))
    let some = try fit(path, ["--target-modules", "q_proj,k_proj,v_proj,o_proj"])
    #expect(try bytes(some, "qlora", "adapter") == 4 * attention)
    #expect(
      try bytes(fit(path, ["--target-modules", "w1,w2,w3"]), "qlora", "adapter") == 4 * stacks)
    try refuse(66, "'w3' and the others of w1, w3 are one parameter", path, ["--target-modules", "w1"])
  }
}
