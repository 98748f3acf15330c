extension HostileFile {
  /// Shapes, offsets and the file's length that do not fit each other.
  static let layouts: [HostileFile] =
    overflows + cuts + extras + [
      HostileFile(
        "size mismatch", "shape [2, 2] × I32 needs 16 bytes, data_offsets [0, 4] give 4", tensor: "a",
        header: "{\"a\":\(fields("I32", "[2,2]", "[0,4]"))}", data: 4,
        twin: "{\"a\":\(fields("I32", "[2,2]", "[0,16]"))}", twinData: 16),
      HostileFile(
        "overlap", "data begins at 2 and overlaps tensor 'a', which ends at 4", tensor: "b",
        header: pair("[0,4]", "[2,6]"), data: 6, twin: pair("[0,4]", "[4,8]"), twinData: 8),
      HostileFile(
        "same range twice", "overlaps tensor", header: pair("[0,4]", "[0,4]"), data: 4, twin: pair("[0,4]", "[4,8]"),
        twinData: 8),
      HostileFile(
        "hole at the start", "leaving a hole of 4 bytes from 0", tensor: "a",
        header: "{\"a\":\(fields("U8", "[4]", "[4,8]"))}", data: 8, twin: "{\"a\":\(fields("U8", "[8]", "[0,8]"))}"),
      HostileFile(
        "hole in the middle", "leaving a hole of 1 byte from 4", tensor: "b", header: pair("[0,4]", "[5,9]"), data: 9,
        twin: pair("[0,4]", "[4,8]"), twinData: 8),
      HostileFile(
        "data without tensors", "found 4 bytes after the last tensor", header: "{}", data: 4, twin: "{}", twinData: 0),
      HostileFile(
        "2^53+1 bytes", "the tensors need 9007199254740993 bytes", tensor: "a",
        header: "{\"a\":\(fields("U8", "[9007199254740993]", "[0,9007199254740993]"))}", twin: valid),
      HostileFile(
        "offsets 2^53 and 2^53+1",
        "shape [2] × U8 needs 2 bytes, data_offsets [9007199254740992, 9007199254740993] give 1",
        tensor: "a", header: "{\"a\":\(fields("U8", "[2]", "[9007199254740992,9007199254740993]"))}", twin: valid),
      HostileFile(
        "4 000 tensors over the same bytes", "overlaps tensor", bytes: { overlapping(4000) },
        twin: { SafetensorsBuilder.many(4000) }),
      HostileFile(
        "pickle", exitCode: 69, "is a Python pickle",
        bytes: { [0x80, 2] + Array("}q\0(X\u{1}\0\0\0aq\u{1}K\u{1}u.".utf8) },
        twin: { SafetensorsBuilder.small.bytes }),
      HostileFile(
        "Git LFS pointer", exitCode: 69, "is a Git LFS pointer",
        bytes: { Array("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n".utf8) },
        twin: { SafetensorsBuilder.small.bytes }),
    ]

  /// No safetensors file, whatever its name; a whole GGUF file, which the tool reads where it is named itself.
  public static let gguf = HostileFile(
    "GGUF", exitCode: 69, "is a GGUF file", bytes: { GGUFBuilder().bytes }, twin: { SafetensorsBuilder.small.bytes })

  /// No safetensors file; what PyTorch writes begins so, which the tool reads where it is named itself.
  public static let zip = HostileFile(
    "ZIP", exitCode: 69, "is a ZIP archive",
    bytes: { Array("PK".utf8) + [3, 4, 0, 0, 8, 8] + [UInt8](repeating: 0, count: 30) },
    twin: { SafetensorsBuilder.small.bytes })

  private static let overflows: [HostileFile] = [
    ("element count", "I32", "[2,18446744073709551614]", "which overflows the 9223372036854775807 allowed"),
    ("element count that wraps to 4", "F32", "[4194305,4194305,211106198978564]", "overflows"),
    ("byte count", "I32", "[2,9223372036854775807]", "overflows"),
    ("bit count", "F64", "[1152921504606846976]", "overflows"),
    ("behind a zero dimension", "U8", "[0,4611686018427387904,4611686018427387904]", "overflows"),
    ("before a zero dimension", "U8", "[4611686018427387904,4611686018427387904,0]", "overflows"),
    ("behind a zero dimension, 2^64-1", "U8", "[0,18446744073709551615,18446744073709551615]", "overflows"),
    ("before a zero dimension, 2^64-1", "U8", "[18446744073709551615,18446744073709551615,0]", "overflows"),
  ].map { (name: String, dtype: String, shape: String, message: String) in
    HostileFile(
      "overflow: \(name)", message, tensor: "a", header: "{\"a\":\(fields(dtype, shape, "[0,0]"))}", data: 0,
      twin: "{\"a\":\(fields(dtype, "[0,2,2]", "[0,0]"))}")
  }

  /// The small file, cut at every byte.
  private static let cuts: [HostileFile] = {
    let whole = SafetensorsBuilder.small.bytes
    return (8..<whole.count).map { count in
      let isInData = count >= whole.count - 22
      return HostileFile(
        "cut after \(count) of \(whole.count) bytes",
        isInData
          ? "data is cut short: the tensors need 22 bytes, the file has \(count + 22 - whole.count)"
          : "header length is \(whole.count - 30) bytes, only \(count - 8) follow it",
        tensor: isInData ? (count < whole.count - 6 ? "a.weight" : "b.weight") : nil,
        bytes: { Array(whole.prefix(count)) }, twin: { whole })
    }
  }()

  private static let extras: [HostileFile] = [
    ("a byte", [0]), ("a ZIP", Array("PK".utf8) + [3, 4] + [UInt8](repeating: 0, count: 26)),
    ("a PDF", Array("%PDF-1.7\n%%EOF\n".utf8)), ("a GGUF", Array("GGUF".utf8) + [UInt8](repeating: 0, count: 20)),
    ("itself", SafetensorsBuilder.small.bytes),
  ].map { (name: String, tail: [UInt8]) in
    HostileFile(
      "\(name) after the last tensor",
      "found \(tail.count == 1 ? "1 byte" : "\(tail.count) bytes") after the last tensor, allowed are none",
      bytes: { SafetensorsBuilder.small.bytes + tail }, twin: { SafetensorsBuilder.small.bytes })
  }

  private static func fields(_ dtype: String, _ shape: String, _ offsets: String) -> String {
    "{\"dtype\":\"\(dtype)\",\"shape\":\(shape),\"data_offsets\":\(offsets)}"
  }

  private static func pair(_ a: String, _ b: String) -> String {
    "{\"a\":\(fields("U8", "[4]", a)),\"b\":\(fields("U8", "[4]", b))}"
  }

  private static func overlapping(_ count: Int) -> [UInt8] {
    let members = (0..<count).map { SafetensorsBuilder.member("t\($0)", "U8", "[1600]", "[0,1600]") }
    return SafetensorsBuilder.file("{" + members.joined(separator: ",") + "}", [UInt8](repeating: 0, count: 1600))
  }
}
