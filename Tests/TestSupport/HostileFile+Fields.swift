extension HostileFile {
  private static let two = "{\"a\":\(t4),\"b\":\(t4.replacing("[0,4]", with: "[4,8]"))}"

  /// Something that occurs twice, so that two readers can see two files.
  static let duplicates: [HostileFile] =
    [
      HostileFile(
        "tensor twice, same range", "the name occurs twice, first at offset 9, at offset 61", tensor: "a",
        header: "{\"a\":\(t4),\"a\":\(t4)}", twin: two, twinData: 8),
      HostileFile(
        "tensor twice, other shape", "the name occurs twice", tensor: "a",
        header: "{\"a\":\(t4),\"a\":\(t4.replacing("[4]", with: "[2,2]"))}", twin: two, twinData: 8),
      HostileFile(
        "tensor twice, one by escape", "the name occurs twice", tensor: "a",
        header: "{\"a\":\(t4),\"\\u0061\":\(t4)}",
        twin: "{\"a\":\(t4),\"\\u0062\":\(t4.replacing("[0,4]", with: "[4,8]"))}",
        twinData: 8),
      HostileFile(
        "tensor twice, others between", "the name occurs twice", tensor: "a",
        header: "{\"a\":\(t4),\"b\":\(t4.replacing("[0,4]", with: "[4,8]")),\"a\":\(t4)}", data: 8, twin: two),
      HostileFile(
        "__metadata__ twice", "key '__metadata__' occurs twice",
        header: "{\"__metadata__\":{},\"__metadata__\":{},\"a\":\(t4)}",
        twin: "{\"__metadata__\":{},\"a\":\(t4)}"),
      HostileFile(
        "metadata key twice", "key 'k' occurs twice",
        header: "{\"__metadata__\":{\"k\":\"1\",\"k\":\"1\"},\"a\":\(t4)}",
        twin: "{\"__metadata__\":{\"k\":\"1\",\"K\":\"1\"},\"a\":\(t4)}"),
      HostileFile(
        "metadata key twice, one by escape", "key 'k' occurs twice",
        header: "{\"__metadata__\":{\"k\":\"1\",\"\\u006b\":\"2\"},\"a\":\(t4)}",
        twin: "{\"__metadata__\":{\"k\":\"1\",\"\\u006c\":\"2\"},\"a\":\(t4)}"),
    ]
    + ["dtype\":\"U8\"", "shape\":[4]", "data_offsets\":[0,4]"].map { field in
      HostileFile(
        "\(field.prefix { $0 != "\"" }) twice", "key '\(field.prefix { $0 != "\"" })' occurs twice", tensor: "a",
        header: valid.replacing("}}", with: ",\"\(field)}}"), twin: valid)
    }

  /// A tensor's fields.
  static let fields: [HostileFile] =
    numbers + offsets + dtypes + [
      one("no dtype", "has no 'dtype'", "{\"shape\":[4],\"data_offsets\":[0,4]}"),
      one("no shape", "has no 'shape'", "{\"dtype\":\"U8\",\"data_offsets\":[0,4]}"),
      one("no data_offsets", "has no 'data_offsets'", "{\"dtype\":\"U8\",\"shape\":[4]}"),
      one("tensor is null", "expected an object", "null"),
      one("tensor is an array", "expected an object", "[\"U8\",[4],[0,4]]"),
      one("shape is a number", "shape: found a number, expected an array", t4.replacing("[4]", with: "4")),
      one(
        "rank 65", "shape has more than the 64 dimensions allowed",
        t4.replacing("[4]", with: "[4\(String(repeating: ",1", count: 64))]"),
        twin: t4.replacing("[4]", with: "[4\(String(repeating: ",1", count: 63))]")),
      one(
        "rank 100 000", "shape has more than the 64 dimensions allowed",
        t4.replacing("[4]", with: "[4\(String(repeating: ",1", count: 99_999))]")),
      one(
        "sub-byte elements that end within a byte", "not a whole number of bytes",
        "{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}",
        twin: "{\"dtype\":\"F4\",\"shape\":[8],\"data_offsets\":[0,4]}"),
      HostileFile(
        "__metadata__ as a tensor", "__metadata__: 'shape' holds an array, expected a string",
        header: "{\"__metadata__\":\(t4)}", twin: valid),
      HostileFile(
        "metadata value is a number", "__metadata__: 'k' holds a number, expected a string",
        header: "{\"__metadata__\":{\"k\":1},\"a\":\(t4)}", twin: "{\"__metadata__\":{\"k\":\"1\"},\"a\":\(t4)}"),
      HostileFile(
        "metadata is an array", "expected an object", header: "{\"__metadata__\":[],\"a\":\(t4)}",
        twin: "{\"__metadata__\":null,\"a\":\(t4)}"),
    ]

  /// Numbers that are not exact integers in range.
  private static let numbers: [HostileFile] = [
    ("4.0", "shape: found 4.0, expected a whole number"), ("4e0", "shape: found 4e0, expected a whole number"),
    ("-4", "shape: found -4, expected a whole number"), ("-0", "shape: found -0, expected a whole number"),
    ("18446744073709551616", "which overflows the 9223372036854775807 allowed"),
    ("9223372036854775808", "which overflows the 9223372036854775807 allowed"),
    ("1e400", "shape: found 1e400, expected a whole number"), ("\"4\"", "shape: found a string"),
    ("true", "shape: found true or false"), ("null", "shape: found null"), ("[4]", "shape: found an array"),
    (String(repeating: "9", count: 100_000), "(100000 digits), which overflows"),
  ].map { (text: String, message: String) in
    one("shape [\(text.prefix(20))]", message, t4.replacing("[4]", with: "[\(text)]"))
  }

  private static let offsets: [HostileFile] = [
    ("[4,0]", "end before they begin"), ("[0]", "has 1 entry, expected 2"), ("[]", "has 0 entries, expected 2"),
    ("[0,4,4]", "more than the 2 entries"), ("[-4,0]", "data_offsets: found -4"),
    ("[0,4.0]", "data_offsets: found 4.0"),
    ("[0,9223372036854775808]", "which overflows"), ("[0,9223372036854775807]", "needs 4 bytes"),
    ("[100,104]", "leaving a hole of 100 bytes"), ("\"0,4\"", "data_offsets: found a string"),
  ].map { (text: String, message: String) in
    one("data_offsets \(text)", message, t4.replacing("[0,4]", with: text))
  }

  private static let dtypes: [HostileFile] =
    ["F128", "u8", "", "U8 ", "U8\\u0000", "BF16\\u0301"].map { name in
      one("dtype '\(name)'", "expected one of BOOL F4", t4.replacing("U8", with: name))
    } + [one("dtype is a number", "dtype: found a number", t4.replacing("\"U8\"", with: "8"))]

  /// One tensor `a` with these fields over four bytes of data.
  private static func one(_ name: String, _ message: String, _ fields: String, twin: String = t4) -> HostileFile {
    HostileFile(name, message, tensor: "a", header: "{\"a\":\(fields)}", twin: "{\"a\":\(twin)}")
  }
}
