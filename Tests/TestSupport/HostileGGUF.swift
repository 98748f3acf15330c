/// GGUF files that must be rejected, each beside the nearest one that must not.
public enum HostileGGUF {
  /// Those that begin as GGUF files do: every verb takes them for such.
  public static var files: [HostileFile] {
    counts + keys + values + alignments + names + shapes + types + offsets + data
  }

  /// Those that do not, or end before it can be told.
  public static var strangers: [HostileFile] { beginnings + magics }

  /// A file with one thing wrong.
  ///
  /// - Parameters:
  ///   - base: what both are made from.
  ///   - twin: makes the valid one, where `base` is not near enough.
  static func row(
    _ name: String, exitCode: Int32 = 65, _ message: String, tensor: String? = nil, of base: GGUFBuilder = .small,
    twin: @escaping @Sendable (inout GGUFBuilder) -> Void = { _ in },
    change: @escaping @Sendable (inout GGUFBuilder) -> Void
  ) -> HostileFile {
    func made(_ change: @escaping @Sendable (inout GGUFBuilder) -> Void) -> @Sendable () -> [UInt8] {
      {
        var builder = base
        change(&builder)
        return builder.bytes
      }
    }
    return HostileFile(name, exitCode: exitCode, message, tensor: tensor, bytes: made(change), twin: made(twin))
  }
}
