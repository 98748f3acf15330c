import Bytes
import Foundation
import Tensors
import Testing

@testable import Architectures

private let casesPath = ProcessInfo.processInfo.environment["NIBBLE_ARCHITECTURE_CASES"]

/// Compares the plan with what transformers itself says; `Sources/Architectures/check.py` writes the cases.
@Suite(.enabled(if: casesPath != nil, "make test-rules writes the cases and sets NIBBLE_ARCHITECTURE_CASES"))
struct RulesAgainstTransformers {
  struct Case {
    let name: String
    var tensors: [TensorInfo] = []
    var letters: [Character] = []
    var quantized: [String] = []
    var floating: [String] = []
  }

  @Test func everyClass() throws {
    let text = try String(contentsOfFile: try #require(casesPath), encoding: .utf8)
    var cases: [Case] = []
    for line in text.split(separator: "\n") {
      let words = line.split(separator: " ").map(String.init)
      if line.hasPrefix("[") {
        cases.append(Case(name: String(line.dropFirst().dropLast())))
        continue
      }
      let last = cases.count - 1
      switch words[0] {
      case "Q": cases[last].quantized.append(words[1])
      case "F": cases[last].floating.append(words[1])
      default:
        let shape = try words.dropFirst(2).map { try #require(Int($0)) }
        cases[last].tensors.append(try TensorInfo(name: TensorName(words[1]), type: .bf16, shape: shape))
        cases[last].letters.append(try #require(words[0].first))
      }
    }
    #expect(!cases.isEmpty)
    for row in cases { check(row) }
  }

  private func check(_ row: Case) {
    let configuration = ModelConfiguration(architecture: row.name)
    let plan = planWeights(row.tensors, configuration: configuration, target: .transformers5, keep: [])
    var wrong = plan.warnings.map(\.description).filter { !$0.contains("the end of their names matches") }
    for ((tensor, letter), disposition) in zip(zip(row.tensors, row.letters), plan.dispositions) {
      let expected: Character =
        switch disposition {
        case .quantize: "q"
        case .quantizeTransposed: "t"
        case .keep: "k"
        }
      if expected != letter { wrong.append("\(tensor.name) is \(disposition), not \(letter)") }
    }
    var matcher = SkipMatcher(target: .transformers5)
    for entry in plan.skipModules { matcher.insert(Array(entry.utf8)) }
    wrong += row.quantized.filter { matcher.matches(Array($0.utf8)) }.map { "\($0) is quantized and skipped" }
    wrong += row.floating.filter { !matcher.matches(Array($0.utf8)) }.map { "\($0) stays float and is not skipped" }
    #expect(wrong.isEmpty, "\(row.name): \(wrong.count) differences, \(wrong.prefix(4).joined(separator: "; "))")
  }
}
