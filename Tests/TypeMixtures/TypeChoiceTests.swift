import Bytes
import GGUF
import JSON
import Patterns
import Tensors
import Testing

@testable import TypeMixtures

/// What `llama-quantize` chose, from `fixtures/gguf-types/choices.txt`.
@Suite struct TypeChoiceTests {
  struct Recorded {
    var id = ""
    var metadata = GGUFMetadata()
    var tensors: [GGUFTensor] = []
  }

  static let records: [[String]] = {
    let path = #filePath.split(separator: "/").dropLast(3).map { "/" + $0 }.joined()
    guard let file = try? InputFile(path: path + "/fixtures/gguf-types/choices.txt"),
      let bytes = try? file.contents(limit: 1 << 20)
    else { return [] }
    return String(decoding: bytes, as: UTF8.self).split(separator: "\n").map { line in
      line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
    }
  }()

  static func metadata(_ architecture: String, _ text: String) throws -> GGUFMetadata {
    var metadata = GGUFMetadata([("general.architecture", .text(architecture))])
    for (key, value) in try #require(JSONValue(parsing: Array(text.utf8)).object).members {
      if let array = value.array {
        metadata["\(architecture).\(key)"] = .uint32s(array.compactMap { $0.int.map { UInt32($0) } })
      } else {
        metadata["\(architecture).\(key)"] = .uint32(UInt32(try #require(value.int)))
      }
    }
    return metadata
  }

  static func tensors(_ record: [String]) throws -> [GGUFTensor] {
    let type = try #require(GGMLType(name: record[3]))
    let shape = record[4].split(separator: "x").compactMap { Int($0) }
    guard record[2] != "-" else { return [try GGUFTensor(name: TensorName(record[1]), type: type, shape: shape)] }
    let bounds = record[2].split(separator: "..").compactMap { Int($0) }
    let parts = record[1].split(separator: "{}", omittingEmptySubsequences: false)
    return try (bounds[0]...bounds[bounds.count - 1]).map {
      try GGUFTensor(name: TensorName(parts.joined(separator: "\($0)")), type: type, shape: shape)
    }
  }

  static func choice(_ scheme: GGUFScheme, _ arguments: String) throws -> TypeChoice {
    var choice = TypeChoice(scheme)
    // --dry-run goes on without an importance matrix where one is needed.
    var words = arguments == "-" ? [] : arguments.split(separator: " ").map(String.init)
    while !words.isEmpty {
      switch words.removeFirst() {
      case "--pure": choice.isPure = true
      case "--leave-output-tensor": choice.leavesOutputTensor = true
      case "--output-tensor-type": choice.outputType = GGMLType(name: words.removeFirst())
      case "--token-embedding-type": choice.embeddingType = GGMLType(name: words.removeFirst())
      case "--tensor-type": choice.overrides.append(try TypeChoice.override(words.removeFirst()))
      case "--imatrix":
        words.removeFirst()
        choice.hasImportance = true
      case let other: Issue.record("\(other)")
      }
    }
    return choice
  }

  static func unpacked(_ text: String, _ letters: [Character: GGMLType]) throws -> [GGMLType] {
    var types: [GGMLType] = []
    var count = 0
    for character in text {
      if let digit = character.wholeNumberValue {
        count = 10 * count + digit
      } else {
        types += Array(repeating: try #require(letters[character]), count: max(1, count))
        count = 0
      }
    }
    return types
  }

  /// The records of a model, from the line that names it.
  struct ModelRecords: CustomTestStringConvertible {
    var records: [[String]]
    var testDescription: String { records[0][1] }
  }

  static let models: [ModelRecords] = records.reduce(into: []) { models, record in
    if record[0] == "model" { models.append(ModelRecords(records: [])) }
    if !models.isEmpty { models[models.count - 1].records.append(record) }
  }

  static func letters() throws -> [Character: GGMLType] {
    let record = try #require(records.first { $0[0] == "letters" })
    return try record[1].split(separator: " ").reduce(into: [:]) { letters, part in
      letters[try #require(part.first)] = GGMLType(name: String(part.dropFirst(2)))
    }
  }

  @Test func nothingIsLeftOut() {
    let compared = Self.models.flatMap(\.records).filter { $0[0] == "types" || $0[0] == "refused" }
    #expect(compared.reduce(0) { $0 + $1[1].split(separator: ",").count } > 3000)
  }

  @Test(arguments: models) func choosesAsLlamaQuantizeDoes(_ recorded: ModelRecords) throws {
    let letters = try Self.letters()
    var model = Recorded()
    var options = "-"
    for record in recorded.records {
      switch record[0] {
      case "model": model = Recorded(id: record[1], metadata: try Self.metadata(record[2], record[3]))
      case "tensors": model.tensors += try Self.tensors(record)
      case "options": options = record[1]
      case "order": #expect(model.tensors.quantizationOrder == record[1].split(separator: " ").compactMap { Int($0) })
      case "types":
        let expected = try Self.unpacked(record[2], letters)
        for name in record[1].split(separator: ",") {
          let choice = try Self.choice(#require(GGUFScheme(named: String(name))), options)
          let found = try choice.choose(model.tensors, metadata: model.metadata, demandsImportance: false).types
          #expect(found.count == expected.count)
          for (index, tensor) in model.tensors.enumerated() where found[index] != expected[index] {
            Issue.record("\(model.id) \(name) \(options) \(tensor.name): \(found[index]), not \(expected[index])")
            break
          }
        }
      case "refused":
        for name in record[1].split(separator: ",") {
          let choice = try Self.choice(#require(GGUFScheme(named: String(name))), options)
          #expect(throws: Failure.self, "\(model.id) \(name) \(options)") {
            try choice.choose(model.tensors, metadata: model.metadata, demandsImportance: false)
          }
        }
      default: break
      }
    }
  }

  @Test func matchesAsStdRegexDoes() throws {
    let names = try #require(Self.records.first { $0[0] == "names" }).dropFirst().map {
      try #require(JSONValue(parsing: Array($0.utf8)).string)
    }
    var understood = 0
    for record in Self.records where record[0] == "match" {
      guard let pattern = LinearPattern(searching: record[1].lowercased(), .ecmaScript) else { continue }
      #expect(names.map { pattern.matches($0) ? "1" : "0" }.joined() == record[2], "\(record[1])")
      understood += 1
    }
    #expect(understood > 90)
  }

  @Test func changesMetadataAsLlamaQuantizeDoes() throws {
    var before = GGUFMetadata([
      ("general.architecture", .text("llama")), ("general.file_type", .uint32(1)), ("general.name", .text("tiny")),
      ("general.quantization_version", .uint32(1)), ("split.no", .uint16(0)), ("split.count", .uint16(1)),
    ])
    before["split.tensors.count"] = .int32(1)
    before["quantize.imatrix.file"] = .text("old")
    for record in Self.records where record[0] == "keys" && record[2] == "-" {
      let scheme = try #require(GGUFScheme(named: record[1]))
      let expected = try #require(JSONValue(parsing: Array(record[3].utf8)).object).members
      let found = before.quantized(to: scheme).pairs
      #expect(found.map(\.key) == expected.map(\.0))
      for (pair, member) in zip(found, expected) {
        #expect(pair.value.integer == member.1.int && pair.value.text == member.1.string, "\(pair.key)")
      }
    }
  }

  @Test func schemesThatCannotBeWrittenAreRefused() throws {
    let tensor = try GGUFTensor(name: "blk.0.attn_q.weight", type: .f16, shape: [256, 256])
    let metadata = GGUFMetadata([("general.architecture", .text("llama")), ("llama.block_count", .uint32(1))])
    for scheme in GGUFScheme.allCases where scheme != .q2_k_s {
      do throws(Failure) {
        _ = try TypeChoice(scheme)([tensor], metadata: metadata)
        #expect(scheme.defaultType.canBeEncoded)
      } catch {
        #expect(error.code == .unsupported && !scheme.defaultType.canBeEncoded, "\(scheme) \(error)")
      }
    }
    #expect(throws: Failure.self) { try TypeChoice(.q2_k_s)([tensor], metadata: metadata) }
    #expect(try TypeChoice(.q2_k_s, hasImportance: true)([tensor], metadata: metadata).types == [.q2_K])
  }

  /// An option that has no effect is told, as `--keep` is.
  @Test func overridesWithoutEffect() throws {
    let metadata = try Self.metadata("llama", "{\"block_count\": 1}")
    let tensors = try [
      ("token_embd.weight", [512, 256]), ("blk.0.ffn_up.weight", [256, 256]), ("blk.0.attn_norm.weight", [256]),
    ].map { try GGUFTensor(name: TensorName($0.0), type: .bf16, shape: $0.1) }
    func warnings(_ options: String...) throws -> [Warning] {
      var choice = TypeChoice(.q8_0)
      choice.overrides = try options.map { try TypeChoice.override($0) }
      return try choice.choose(tensors, metadata: metadata).warnings
    }
    #expect(try warnings("ffn_up=q6_k").isEmpty)
    #expect(try warnings("FFN_UPP=q6_k", "ffn_up=q6_k") == ["--tensor-type 'FFN_UPP=q6_K' matches no tensor"])
    let norm = try warnings("norm=f32", "ffn=q6_k")
    #expect(
      norm.count == 1 && norm[0].contains("'norm=f32' decides nothing")
        && norm[0].names.contains("blk.0.attn_norm.weight"))
    let second = try warnings("ffn=q6_k", "ffn_up=q5_k")
    #expect(second.count == 1 && second[0].contains("'ffn_up=q5_K' decides nothing"))
  }

  /// Rows that are not whole blocks: one warning for each reason, however many tensors.
  @Test func oneWarningForAllRows() throws {
    let metadata = try Self.metadata("llama", "{\"block_count\": 20}")
    let tensors = try (0..<20).map {
      try GGUFTensor(name: TensorName("blk.\($0).ffn_up.weight"), type: .bf16, shape: [256, 96])
    }
    let warnings = try TypeChoice(.q4_k_s).choose(tensors, metadata: metadata).warnings
    #expect(warnings.count == 1 && warnings[0].names.count == 20)
    #expect(
      warnings[0].brief.hasSuffix("'blk.0.ffn_up.weight', 'blk.1.ffn_up.weight', 'blk.2.ffn_up.weight' and 17 more"))
  }
}
