extension HostileDirectory {
  /// Directories that must be accepted, the twins of the others.
  static let accepted: [HostileDirectory] =
    [
      HostileDirectory("two shards", exitCode: 0, nil, sharded),
      HostileDirectory("single file", exitCode: 0, nil, [("model.safetensors", shard("a"))]),
      HostileDirectory(
        "an adapter", exitCode: 0, nil,
        [("adapter_model.safetensors", shard("a")), ("adapter_config.json", text("{}"))]),
      HostileDirectory("shard 1 of 1", exitCode: 0, nil, [("model-00001-of-00001.safetensors", shard("a"))]),
      HostileDirectory(
        "index of another stem", exitCode: 0, nil,
        [("diffusion.safetensors.index.json", index([("a", "s1.safetensors")])), ("s1.safetensors", shard("a"))]),
      HostileDirectory(
        "index that lists model.safetensors", exitCode: 0, nil,
        [(indexName, index([("a", "model.safetensors")])), ("model.safetensors", shard("a"))]),
      HostileDirectory(
        "a safetensors file beside the shards", exitCode: 0, nil, sharded + [("consolidated.safetensors", shard("x"))]),
      HostileDirectory("hidden files", exitCode: 0, nil, sharded + [("._model.safetensors", text("junk"))]),
      HostileDirectory("index without metadata", exitCode: 0, nil, sharded(indexName, text(plainIndex))),
      HostileDirectory(
        "index with other members", exitCode: 0, nil,
        sharded(indexName, text("{\"x\":[{\"y\":1}],\"metadata\":{\"z\":{}}," + plainIndex.dropFirst()))),
      HostileDirectory(
        "names that differ in normalization only", exitCode: 0, nil,
        [
          (indexName, index([("\u{e9}", "s1.safetensors"), ("e\u{301}", "s2.safetensors")])),
          ("s1.safetensors", shard("\u{e9}")), ("s2.safetensors", shard("e\u{301}")),
        ]),
      HostileDirectory(
        "PyTorch weights beside", exitCode: 0,
        "ignored: 'pytorch_model.bin', since loaders take safetensors files where there are any",
        [
          ("model.safetensors", shard("a")), ("pytorch_model.bin", text("x")),
          ("pytorch_model.bin.index.json", text("{}")),
        ]),
    ]
    + ["-1", "18446744073709551616", "\"24\"", "24.0", "23", "null"].map { (size: String) -> HostileDirectory in
      HostileDirectory(
        "total_size \(size)", exitCode: 0, "metadata.total_size is",
        sharded(indexName, index(plainMap, totalSize: size)))
    }

  private static let plainMap = [("a", "s1.safetensors"), ("b", "s2.safetensors"), ("c", "s2.safetensors")]
  private static let plainIndex =
    "{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\",\"c\":\"s2.safetensors\"}}"

  /// File names in `weight_map` that are no plain names; as raw JSON.
  static let paths: [HostileDirectory] = [
    "../../etc/passwd", "sub/../../x", "..", ".", "", "/etc/shadow", "//host/x", "C:\\\\x", "\\\\\\\\srv\\\\x",
    "file:///etc/passwd", "~/x", "a\\u0000b", "a\\nb", "%2e%2e/x", "s1.safetensors/", "..\\\\x", "sub/s1.safetensors",
    "a\\u007fb", String(repeating: "n", count: 300),
  ].map { path in
    HostileDirectory(
      "weight_map to '\(path.prefix(20))'", "which is not a plain name of a file beside the index", tensor: "b",
      sharded(indexName, index([("a", "s1.safetensors"), ("b", path), ("c", "s2.safetensors")])))
  }

  static let links: [HostileDirectory] =
    [
      ("out of the directory", "/etc/hostname"), ("to another directory", "../other/s1.safetensors"),
      ("to a neighbour", "s2.safetensors"), ("to a directory", "/etc"), ("dangling", "nowhere"),
      ("to itself", "s1.safetensors"),
      ("like the cache's, elsewhere", "../../blobs/0123abcd"),
    ].map { (name: String, target: String) in
      HostileDirectory(
        "link \(name)", "is a symbolic link to '\(target)'", root: "model",
        sharded("s1.safetensors", .link(target)).map { ("model/" + $0.path, $0.entry) }
          + [("other/s1.safetensors", shard("a"))])
    } + [
      cache("Hugging Face cache", exitCode: 0, nil, "../../blobs/0123abcd"),
      cache("cache link to another model", "is a symbolic link", "../../../models--x--z/blobs/0123abcd"),
      cache("cache link to a name that is no digest", "is a symbolic link", "../../blobs/../../../passwd"),
      cache("cache link to nothing", exitCode: 66, "No such file", "../../blobs/ffff"),
      HostileDirectory(
        "single file that is a link", "is a symbolic link", [("model.safetensors", .link("/etc/hostname"))]),
      HostileDirectory("shard that is a directory", "is a directory", sharded("s1.safetensors", .directory)),
      HostileDirectory("index that is a link", "is a symbolic link", sharded(indexName, .link("/etc/hostname"))),
    ]

  private static func cache(_ name: String, exitCode: Int32 = 65, _ message: String?, _ target: String)
    -> HostileDirectory
  {
    HostileDirectory(
      name, exitCode: exitCode, message, root: "models--x--y/snapshots/89ab",
      [
        ("models--x--y/blobs/0123abcd", shard("a")), ("models--x--z/blobs/0123abcd", shard("a")),
        ("models--x--y/snapshots/89ab/model.safetensors", .link(target)),
      ])
  }

  /// Index and shards say different things.
  static let disagreements: [HostileDirectory] = [
    HostileDirectory(
      "missing shard", exitCode: 66, "the file is missing; 'model.safetensors.index.json' puts 2 tensors into it",
      tensor: "b", sharded("s2.safetensors", nil)),
    HostileDirectory(
      "tensor in the other shard", "says the tensor is in 's1.safetensors', found in 's2.safetensors'", tensor: "b",
      sharded(indexName, index([("a", "s1.safetensors"), ("b", "s1.safetensors"), ("c", "s2.safetensors")]))),
    HostileDirectory(
      "shards swapped", "says the tensor is in 's1.safetensors', found in 's2.safetensors'", tensor: "a",
      [sharded[0], ("s1.safetensors", shard("b", "c")), ("s2.safetensors", shard("a"))]),
    HostileDirectory(
      "tensor in both shards", "the tensor is in 's1.safetensors' too", tensor: "b",
      sharded("s1.safetensors", shard("a", "b"))),
    HostileDirectory(
      "tensor in no shard", "no shard has it", tensor: "b", sharded("s2.safetensors", shard("c"))),
    HostileDirectory(
      "last tensor in no shard", "no shard has it", tensor: "c", sharded("s2.safetensors", shard("b"))),
    HostileDirectory(
      "tensor not in the index", "the tensor is not listed", tensor: "d", sharded("s1.safetensors", shard("a", "d"))),
    HostileDirectory(
      "first tensor not in the index", "the tensor is not listed", tensor: "0",
      sharded("s1.safetensors", shard("0", "a"))),
    HostileDirectory(
      "shard cut short", "data is cut short",
      sharded("s2.safetensors", .file { SafetensorsBuilder.small.bytes.dropLast() })),
    HostileDirectory(
      "shard that is a GGUF file", exitCode: 69, "is a GGUF file",
      sharded("s2.safetensors", text("GGUF\u{3}\0\0\0 and more of it"))),
  ]

  /// Indexes that are no indexes.
  static let indexes: [HostileDirectory] = [
    badIndex("empty", "not JSON: it is an empty file", ""), badIndex("array", "index is not a JSON object", "[]"),
    badIndex("no weight_map", "index has no 'weight_map'", "{\"metadata\":{}}"),
    badIndex("empty weight_map", "empty 'weight_map'", "{\"weight_map\":{}}"),
    badIndex("weight_map is an array", "weight_map is an array, expected an object", "{\"weight_map\":[]}"),
    badIndex("file name is a number", "weight_map holds a number, expected a file name", "{\"weight_map\":{\"a\":1}}"),
    badIndex("tensor twice", "key 'a' occurs twice", plainIndex.replacing("\"b\"", with: "\"a\"")),
    badIndex("tensor twice by escape", "key 'a' occurs twice", plainIndex.replacing("\"b\"", with: "\"\\u0061\"")),
    badIndex("weight_map twice", "key 'weight_map' occurs twice", plainIndex.dropLast() + ",\"weight_map\":{}}"),
    badIndex(
      "metadata twice", "key 'metadata' occurs twice", "{\"metadata\":{},\"metadata\":{}," + plainIndex.dropFirst()),
    badIndex(
      "total_size twice", "key 'total_size' occurs twice",
      "{\"metadata\":{\"total_size\":1,\"total_size\":2}," + plainIndex.dropFirst()),
    badIndex("trailing comma", "expected a key in double quotes", plainIndex.dropLast(2) + ",}}"),
    badIndex("trailing junk", "expected the end of the JSON text", plainIndex + "x"),
    badIndex(
      "deep nesting", "nested deeper than the 64 levels", "{\"x\":" + String(repeating: "[", count: 1_000_000)),
    HostileDirectory(
      "index: 100 000 001 bytes", "has 100000001 bytes, allowed are 100000000",
      sharded(indexName, .file { [UInt8](repeating: 0x20, count: 100_000_001) })),
  ]

  private static func badIndex(_ name: String, _ message: String, _ text: String) -> HostileDirectory {
    HostileDirectory("index: \(name)", message, sharded(indexName, .file { Array(text.utf8) }))
  }

  /// Holds no safetensors file; a GGUF model, which the tool reads.
  public static let gguf = HostileDirectory(
    "GGUF only", exitCode: 69, "only weights of another kind", [("m.gguf", .file { GGUFBuilder().bytes })])

  /// Holds no safetensors file; one of PyTorch, which the tool reads.
  public static let pytorch = HostileDirectory(
    "PyTorch only", exitCode: 69, "only weights of another kind ('pytorch_model.bin')",
    [("pytorch_model.bin", text("x"))])

  /// Directories in which it is not clear what the checkpoint is.
  static let choices: [HostileDirectory] = [
    HostileDirectory("nothing", exitCode: 66, "holds no safetensors file", [("config.json", text("{}"))]),
    HostileDirectory(
      "two files, no index", "holds 2 safetensors files ('x.safetensors', 'y.safetensors')",
      [("x.safetensors", shard("a")), ("y.safetensors", shard("b"))]),
    HostileDirectory(
      "shards of two models, no index", exitCode: 66, "holds shard 1 of 2 but no 'a.safetensors.index.json'",
      [
        ("a-00001-of-00002.safetensors", shard("a")), ("a-00002-of-00002.safetensors", shard("b")),
        ("b-00001-of-00002.safetensors", shard("c")),
      ]),
    HostileDirectory(
      "one of two shards, no index", exitCode: 66, "holds shard 2 of 2",
      [("model-00002-of-00002.safetensors", shard("b"))]),
    HostileDirectory(
      "two indexes", "holds 2 indexes",
      [
        ("x.safetensors.index.json", index([("a", "s1.safetensors")])),
        ("y.safetensors.index.json", index([("a", "s1.safetensors")])), ("s1.safetensors", shard("a")),
      ]),
    HostileDirectory(
      "index and another single file", "does not list 'model.safetensors'",
      sharded + [("model.safetensors", shard("z"))]),
  ]
}
