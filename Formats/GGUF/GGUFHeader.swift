public struct GGUFHeader: Sendable {
  static let nestingLimit = 8
}
