import Bytes
import GGUF
import JSON
import Testing

@testable import Tokenizers

/// Damaged files of a tokenizer: each is refused with a typed failure, and the valid one it was made of is not.
struct TokenizerTests {
  static let valid = #"""
    {"added_tokens":[{"id":3,"content":"<|end|>","special":true,"normalized":false}],"normalizer":null,
    "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":true},"post_processor":null,
    "model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}
    """#

  private func convert(_ tokenizer: String, size: Int = 6, type: String = "gpt2") throws(Failure) -> GGUFTokenizer {
    try ggufTokenizer(modelType: type, config: ["vocab_size": .number(size)], fileNames: []) {
      (name: String) -> [UInt8]? in
      name == "tokenizer.json" ? Array(tokenizer.utf8) : nil
    }
  }

  @Test func theValidOne() throws {
    let metadata = GGUFMetadata(try convert(Self.valid).pairs)
    #expect(try metadata.text("tokenizer.ggml.pre") == "gpt-2")
    let tokens = try #require(try metadata.byteStrings("tokenizer.ggml.tokens"))
    #expect(tokens == ["a", "b", "ab", "<|end|>", "[PAD4]", "[PAD5]"].map { Array($0.utf8) })
    #expect(try metadata.integers("tokenizer.ggml.token_type") == [1, 1, 1, 3, 5, 5])
    #expect(try metadata.byteStrings("tokenizer.ggml.merges") == [Array("a b".utf8)])
  }

  @Test func aPairIsTheSameMerge() throws {
    let text = Self.valid.replacing(#"["a b"]"#, with: #"[["a","b"]]"#)
    #expect(try GGUFMetadata(convert(text).pairs).byteStrings("tokenizer.ggml.merges") == [Array("a b".utf8)])
  }

  @Test(arguments: [
    (#""b":1"#, #""a":1"#), (#""b":1"#, #""b":0"#), (#""b":1"#, #""b":-1"#), (#""b":1"#, #""b":4194304"#),
    (#""b":1"#, #""b":"1""#), (#"["a b"]"#, #"["a c"]"#), (#"["a b"]"#, #"["b a"]"#), (#"["a b"]"#, #"["ab"]"#),
    (#"["a b"]"#, #"["a b c"]"#), (#"["a b"]"#, #"[["a"]]"#), (#"["a b"]"#, #"[["a","b","c"]]"#),
    (#"["a b"]"#, #"{}"#), (#""id":3"#, #""id":2"#), (#""id":3"#, #""id":6"#), (#""id":3"#, #""id":null"#),
    (#""<|end|>""#, #""ab""#), (#""special":true"#, #""special":1"#), (#""<|end|>""#, "7"),
    (#""model":{"#, #""model":[{"#),
  ])
  func aDamagedOne(_ change: (found: String, put: String)) {
    let text = Self.valid.replacing(change.found, with: change.put)
    #expect(text != Self.valid)
    let failure = #expect(throws: Failure.self) { try convert(text) }
    #expect(failure?.code == .malformed)
  }

  @Test(arguments: [
    (#""use_regex":true"#, #""use_regex":false"#), (#""type":"BPE""#, #""type":"Unigram""#),
    (#""normalizer":null"#, #""normalizer":{"type":"Lowercase"}"#), (#"["a b"]"#, "[]"),
  ])
  func oneThatHasNoCounterpart(_ change: (found: String, put: String)) {
    let failure = #expect(throws: Failure.self) { try convert(Self.valid.replacing(change.found, with: change.put)) }
    #expect(failure?.code == .unsupported)
  }

  @Test func fewerRowsThanTokens() {
    #expect(throws: Failure.self) { try convert(Self.valid, size: 3) }
    #expect(throws: Never.self) { try convert(Self.valid, size: 4) }
  }

  @Test func thereAndBack() throws {
    let metadata = GGUFMetadata(try convert(Self.valid).pairs)
    let files = try huggingFaceTokenizer(metadata).files
    let again = try ggufTokenizer(modelType: "gpt2", config: ["vocab_size": 6], fileNames: []) {
      (name: String) -> [UInt8]? in
      files.first { $0.name == name }?.contents
    }
    for (key, value) in metadata.pairs {
      let other = try #require(GGUFMetadata(again.pairs)[key])
      #expect(try value.array?.encodedElements() == other.array?.encodedElements() && value.text == other.text)
    }
  }
}
