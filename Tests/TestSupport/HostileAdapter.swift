/// An adapter, or its base, that must be refused, and beside it the nearest that must not.
public struct HostileAdapter: Sendable, CustomStringConvertible {
  /// Base and adapter before they are written.
  public struct Pair: Sendable {
    public var base = TestModel.llama()
    public var adapter = AdapterBuilder.llama()
    public init() {}
  }

  public let name: String
  public let exitCode: Int32
  /// Part of the one line on stderr.
  public let message: String
  /// The tensor that the line must name.
  public let tensor: String?
  public let options: [String]
  /// Part of a warning of the twin; nil when it has none.
  public let warning: String?
  private(set) var twinChange: @Sendable (inout Pair) -> Void
  let change: @Sendable (inout Pair) -> Void

  /// - Parameter twin: what makes the twin of the plain pair; nothing by default.
  init(
    _ name: String, exitCode: Int32 = 65, _ message: String, tensor: String? = nil, options: [String] = [],
    warning: String? = nil, twin: @escaping @Sendable (inout Pair) -> Void = { _ in },
    _ change: @escaping @Sendable (inout Pair) -> Void
  ) {
    self.name = name
    self.exitCode = exitCode
    self.message = message
    self.tensor = tensor.map { AdapterBuilder.prefix + $0 }
    self.options = options
    self.warning = warning
    twinChange = twin
    self.change = change
  }

  public var description: String { name }

  /// With another twin.
  func beside(_ twin: @escaping @Sendable (inout Pair) -> Void) -> HostileAdapter {
    var copy = self
    copy.twinChange = twin
    return copy
  }

  public var pair: Pair {
    var pair = Pair()
    change(&pair)
    return pair
  }

  public var twin: Pair {
    var pair = Pair()
    twinChange(&pair)
    return pair
  }

  /// One member of `adapter_config.json`.
  static func member(
    _ key: String, _ json: String?, exitCode: Int32 = 65, _ message: String, twin: String? = nil,
    warning: String? = nil
  ) -> HostileAdapter {
    HostileAdapter(
      "\(key) \(json.map { String($0.prefix(60)) } ?? "missing")", exitCode: exitCode, message, warning: warning,
      twin: { if let twin { $0.adapter.set(key, twin) } }, { $0.adapter.set(key, json) })
  }

  /// Every adapter that must be refused.
  public static var all: [HostileAdapter] { configurations + kinds + shapes + keys + values + files }
}
