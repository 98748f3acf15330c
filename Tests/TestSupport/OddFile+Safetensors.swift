extension OddFile {
  /// Safetensors files that look strange and are valid.
  public static let safetensors: [OddFile] =
    dtypes + [
      header("leading spaces", "  " + valid),
      header("leading tab and line break", "\t\n\r " + valid),
      header("trailing whitespace", valid + " \t\r\n"),
      header("no tensors", "{}", tensors: [], data: 0),
      header("metadata null", "{\"__metadata__\":null,\"a\":\(t4)}"),
      header("metadata empty", "{\"__metadata__\":{},\"a\":\(t4)}"),
      header("metadata last", "{\"a\":\(t4),\"__metadata__\":{\"format\":\"pt\"}}"),
      header("empty name", "{\"\":\(t4)}", tensors: [""], warning: "name is empty"),
      header("NUL in a name", "{\"a\\u0000b\":\(t4)}", tensors: ["a\0b"]),
      header("name like a path", "{\"../../x\":\(t4)}", tensors: ["../../x"]),
      header("name like an absolute path", "{\"/etc/passwd\":\(t4)}", tensors: ["/etc/passwd"]),
      header(
        "escapes for a terminal in a name", "{\"\\u001b[31m\\u202e\\u009b\":\(t4)}",
        tensors: ["\u{1b}[31m\u{202e}\u{9b}"]),
      header(
        "name of 64 KiB", "{\"\(String(repeating: "n", count: 65536))\":\(t4)}",
        tensors: [String(repeating: "n", count: 65536)]),
      header("surrogate pair", "{\"\\ud83d\\ude00\":\(t4)}", tensors: ["😀"]),
      header(
        "names that differ in normalization only",
        "{\"\u{e9}\":\(t4),\"e\u{301}\":\(t4.replacing("[0,4]", with: "[4,8]"))}", tensors: ["\u{e9}", "e\u{301}"],
        data: 8),
      header(
        "tensors not in the order of their data",
        "{\"b\":\(t4.replacing("[0,4]", with: "[4,8]")),\"a\":\(t4)}", tensors: ["a", "b"], data: 8),
      header("fields in another order", "{\"a\":{\"data_offsets\":[0,4],\"shape\":[4],\"dtype\":\"U8\"}}"),
      header("field name by escape", valid.replacing("dtype", with: "\\u0064type")),
      header(
        "whitespace everywhere",
        "{ \"a\" : { \"dtype\" : \"U8\" ,\n\"shape\" : [ 4 ] , \"data_offsets\" : [ 0 , 4 ] } }"),
      header("unknown field", valid.replacing("}}", with: ",\"x\":1}}"), warning: "unknown field 'x' ignored"),
      header(
        "nested unknown field", valid.replacing("}}", with: ",\"x\":{\"y\":[1,{\"z\":null}],\"w\":\"\\u0041\"}}}"),
        warning: "unknown field 'x' ignored"),
      header("scalar", "{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}"),
      header(
        "zero-size tensors before, between and after",
        "{\"z2\":{\"dtype\":\"F64\",\"shape\":[0],\"data_offsets\":[4,4]},\"b\":\(t4.replacing("[0,4]", with: "[4,8]")),"
          + "\"z1\":{\"dtype\":\"F32\",\"shape\":[2,0],\"data_offsets\":[0,0]},\"a\":\(t4),"
          + "\"z3\":{\"dtype\":\"U8\",\"shape\":[0,9007199254740993],\"data_offsets\":[8,8]}}",
        tensors: ["z1", "a", "z2", "b", "z3"], data: 8),
      header(
        "rank 64", valid.replacing("[4]", with: "[\(String(repeating: "1,", count: 63))4]")),
      OddFile("50 000 pairs of metadata", tensors: ["a"]) {
        let pairs = (0..<50_000).map { "\"key \($0)\":\"value\"" }.joined(separator: ",")
        return SafetensorsBuilder.file("{\"__metadata__\":{\(pairs)},\"a\":\(t4)}", [1, 1, 1, 1])
      },
      OddFile("1 MB of metadata in one string", tensors: ["a"]) {
        let text = String(repeating: "0123456789", count: 100_000)
        return SafetensorsBuilder.file("{\"__metadata__\":{\"k\":\"\(text)\"},\"a\":\(t4)}", [1, 1, 1, 1])
      },
    ]
    + (0..<8).map { remainder in
      OddFile("header length ≡ \(remainder) mod 8", tensors: ["a.weight", "b.weight"]) {
        var builder = SafetensorsBuilder.small
        builder.lengthModulo8 = remainder
        return builder.bytes
      }
    }

  /// One tensor of each dtype of safetensors 0.8, with non-finite values where it has any.
  private static let dtypes: [OddFile] = [
    ("BOOL", 1), ("F4", 1), ("F6_E2M3", 3), ("F6_E3M2", 3), ("U8", 1), ("I8", 1), ("F8_E5M2", 1), ("F8_E4M3", 1),
    ("F8_E8M0", 1), ("F8_E4M3FNUZ", 1), ("F8_E5M2FNUZ", 1), ("I16", 2), ("U16", 2), ("F16", 2), ("BF16", 2), ("I32", 4),
    ("U32", 4), ("F32", 4), ("C64", 8), ("F64", 8), ("I64", 8), ("U64", 8),
  ].map { (dtype: String, size: Int) in
    OddFile("dtype \(dtype), all bits set", tensors: ["a"]) {
      let elements = dtype == "F4" ? 2 : dtype.hasPrefix("F6_") ? 4 : 1
      return SafetensorsBuilder([.init("a", dtype, [elements], [UInt8](repeating: 0xFF, count: size))]).bytes
    }
  }

  private static func header(
    _ name: String, _ header: String, tensors: [String] = ["a"], data: Int = 4, warning: String? = nil
  ) -> OddFile {
    OddFile(name, tensors: tensors, warning: warning) {
      SafetensorsBuilder.file(header, [UInt8](repeating: 1, count: data))
    }
  }
}
