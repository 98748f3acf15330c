import Bytes
package import JSON

/// The origin of a checkpoint and the command that made it, as its manifest says.
package struct Provenance: Sendable {
  /// The verb, such as `quantize`.
  package let operation: String
  /// Names of the model that it was made from, and of those that that one was made from: the nearest first.
  package let origins: [String]
  let options: JSONValue

  private static let nameLimit = 200

  /// nil for a checkpoint without a manifest that can be read.
  package init?(_ record: SourceRecord) {
    guard let operation = record.operation, let options = record.options else { return nil }
    self.operation = operation
    self.options = options
    origins = record.origins
  }

  /// `made from Llama-2-7b-hf by nibble quantize (nf4)`.
  package var text: String {
    let names = origins.map { $0.printable(limit: Self.nameLimit) }
    let detail = (options["scheme"] ?? options["dtype"])?.string.map { " (\($0.printable(limit: 40)))" } ?? ""
    let verb = "nibble \(operation.printable(limit: 40))\(detail)"
    guard let first = names.first else { return "made by \(verb)" }
    let others = names.dropFirst().map { ", that from \($0)" }.joined()
    return "made from \(first) by \(verb)\(others)"
  }

  package var json: JSONValue {
    .object([
      "operation": .string(operation), "origins": .array(origins.map(JSONValue.string)), "options": options,
    ])
  }
}
