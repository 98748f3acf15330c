import Foundation

/// Checkpoints with real shapes and no data: files whose data section is a hole.
public enum SparseCheckpoint {
  /// Writes a header and makes the file as long as its data would be.
  public static func write(_ json: String, dataSize: Int, to path: String) throws {
    let header = SafetensorsBuilder.file(json)
    try Data(header).write(to: URL(fileURLWithPath: path))
    let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
    try file.truncate(atOffset: UInt64(header.count + dataSize))
    try file.close()
  }

  /// One file of `count` one-byte tensors named like experts of a model; about 108 bytes of header each.
  public static func many(_ count: Int, to path: String) throws {
    var json = "{"
    for index in 0..<count {
      if index > 0 { json += "," }
      json += SafetensorsBuilder.member(
        "model.layers.\(index / 24).mlp.experts.\(index % 24).down_proj.weight", "U8", "[1]", "[\(index),\(index + 1)]")
    }
    try write(json + "}", dataSize: count, to: path)
  }

  /// A Llama of 40 layers, 5120 wide, in three shards with an index: 26 GB that take no room.
  public static func llama13B(in directory: String) throws {
    let (hidden, inner, vocabulary) = (5120, 13824, 32016)
    var shards: [[(name: String, shape: [Int])]] = [[], [], []]
    shards[0].append(("model.embed_tokens.weight", [vocabulary, hidden]))
    for layer in 0..<40 {
      let parts: [(String, [Int])] =
        ["q", "k", "v", "o"].map { ("self_attn.\($0)_proj", [hidden, hidden]) } + [
          ("mlp.gate_proj", [inner, hidden]), ("mlp.up_proj", [inner, hidden]), ("mlp.down_proj", [hidden, inner]),
          ("input_layernorm", [hidden]), ("post_attention_layernorm", [hidden]),
        ]
      for (part, shape) in parts { shards[layer * 3 / 40].append(("model.layers.\(layer).\(part).weight", shape)) }
    }
    shards[2].append(("model.norm.weight", [hidden]))
    shards[2].append(("lm_head.weight", [vocabulary, hidden]))

    var map: [String] = []
    var total = 0
    for (number, tensors) in shards.enumerated() {
      let file = "model-0000\(number + 1)-of-00003.safetensors"
      var members: [String] = []
      var begin = 0
      for tensor in tensors {
        let end = begin + tensor.shape.reduce(2, *)
        members.append(SafetensorsBuilder.member(tensor.name, "BF16", "\(tensor.shape)", "[\(begin),\(end)]"))
        map.append("\"\(tensor.name)\":\"\(file)\"")
        begin = end
      }
      try write("{" + members.joined(separator: ",") + "}", dataSize: begin, to: directory + "/" + file)
      total += begin
    }
    let index = "{\"metadata\":{\"total_size\":\(total)},\"weight_map\":{\(map.joined(separator: ","))}}"
    try Data(index.utf8).write(to: URL(fileURLWithPath: directory + "/model.safetensors.index.json"))
  }
}
