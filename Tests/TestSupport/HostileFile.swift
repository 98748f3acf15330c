/// A file that must be rejected, and beside it the nearest one that must not.
public struct HostileFile: Sendable, CustomStringConvertible {
  public let name: String
  public let bytes: @Sendable () -> [UInt8]
  /// Of the process that is given the file.
  public let exitCode: Int32
  /// Part of the one line on stderr.
  public let message: String
  /// The tensor that the line must name.
  public let tensor: String?
  public let twin: @Sendable () -> [UInt8]

  public init(
    _ name: String, exitCode: Int32 = 65, _ message: String, tensor: String? = nil,
    bytes: @escaping @Sendable () -> [UInt8], twin: @escaping @Sendable () -> [UInt8]
  ) {
    self.name = name
    self.bytes = bytes
    self.exitCode = exitCode
    self.message = message
    self.tensor = tensor
    self.twin = twin
  }

  /// From raw header texts with the same data behind both.
  init(
    _ name: String, _ message: String, tensor: String? = nil, header: String, data: Int = 4, twin: String,
    twinData: Int? = nil
  ) {
    self.init(
      name, message, tensor: tensor,
      bytes: { SafetensorsBuilder.file(header, [UInt8](repeating: 1, count: data)) },
      twin: { SafetensorsBuilder.file(twin, [UInt8](repeating: 1, count: twinData ?? data)) })
  }

  public var description: String { name }

  /// Every safetensors file that must be rejected.
  public static var safetensors: [HostileFile] { prefixes + texts + duplicates + fields + layouts }
}

/// A file that looks strange and must be accepted.
public struct OddFile: Sendable, CustomStringConvertible {
  public let name: String
  public let bytes: @Sendable () -> [UInt8]
  /// Names of its tensors, in the order of their data.
  public let tensors: [String]
  /// Part of a warning that must appear; nil when there must be none.
  public let warning: String?

  public init(
    _ name: String, tensors: [String], warning: String? = nil, bytes: @escaping @Sendable () -> [UInt8]
  ) {
    self.name = name
    self.bytes = bytes
    self.tensors = tensors
    self.warning = warning
  }

  public var description: String { name }
}

/// `{"dtype":"U8","shape":[4],"data_offsets":[0,4]}`
let t4 = "{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}"
let valid = "{\"a\":\(t4)}"
