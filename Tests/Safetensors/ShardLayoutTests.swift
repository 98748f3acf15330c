import Bytes
import JSON
import Safetensors
import Tensors
import TestSupport
import Testing

@Suite struct ShardLayoutTests {
  private func tensor(_ name: String, _ bytes: Int) throws -> TensorInfo {
    try TensorInfo(name: TensorName(name), type: .u8, shape: [bytes])
  }

  /// Sizes of layers, of their groups, of their tensors → what each shard holds.
  static let cases: [(limit: Int, layers: [[[Int]]], shards: [[Int]])] = [
    (100, [], [[]]),
    (100, [[[40]], [[60]]], [[40, 60]]),
    (100, [[[40]], [[61]]], [[40], [61]]),
    // A layer stays whole even where its first group would still fit.
    (100, [[[40]], [[30], [40]]], [[40], [30, 40]]),
    // A layer larger than a shard is split between groups, and fills the shard begun.
    (100, [[[40]], [[50], [60], [30]]], [[40, 50], [60, 30]]),
    // A group larger than a shard is not split.
    (100, [[[10]], [[70, 50], [30]], [[20]]], [[10], [70, 50], [30, 20]]),
    (100, [[[0]], [[100]], [[0]], [[1]]], [[0, 100, 0], [1]]),
    (1, [[[5]], [[6]], [[7]]], [[5], [6], [7]]),
    (0, [[[5]], [[6]]], [[5], [6]]),
    (Int.max, [[[5]], [[6]]], [[5, 6]]),
  ]

  @Test(arguments: cases) func packing(_ row: (limit: Int, layers: [[[Int]]], shards: [[Int]])) throws {
    var count = 0
    let layers = try row.layers.map { layer in
      try layer.map { group in
        try group.map { size in
          count += 1
          return try tensor("t\(count)", size)
        }
      }
    }
    let layout = try ShardLayout(layers: layers, maxShardSize: row.limit)
    #expect(layout.shards.map { $0.tensors.map(\.byteCount) } == row.shards)
    #expect(layout.shards.flatMap { $0.tensors.map(\.name.string) } == (0..<count).map { "t\($0 + 1)" })
    for (number, shard) in layout.shards.enumerated() {
      #expect(
        shard.name
          == (layout.shards.count == 1
            ? "model.safetensors" : "model-0000\(number + 1)-of-0000\(layout.shards.count).safetensors"))
      let header = try SafetensorsHeader(
        ofFile: shard.header + [UInt8](repeating: 0, count: shard.size - shard.header.count))
      #expect(header.tensors.map(\.byteCount).reduce(0, +) == shard.tensors.map(\.byteCount).reduce(0, +))
      for (tensor, offset) in zip(shard.tensors, shard.offsets) {
        let index = try #require(header.index(of: tensor.name))
        #expect(header.range(of: index) == offset..<(offset + tensor.byteCount))
      }
    }
  }

  @Test func index() throws {
    let layout = try ShardLayout(
      layers: [[[try tensor("model.b", 60)]], [[try tensor("model.a\u{1b}", 60), try tensor("Model", 3)]]],
      maxShardSize: 100)
    #expect(layout.indexName == "model.safetensors.index.json")
    #expect(
      layout.indexText(totalParameters: 123) == """
        {
          "metadata": {
            "total_parameters": 123,
            "total_size": 123
          },
          "weight_map": {
            "Model": "model-00002-of-00002.safetensors",
            "model.a\\u001b": "model-00002-of-00002.safetensors",
            "model.b": "model-00001-of-00002.safetensors"
          }
        }

        """)
    let value = try JSONValue(parsing: Array(layout.indexText().utf8))
    #expect(value.text(.indented) + "\n" == layout.indexText())
    #expect(value["metadata"]?.object?.keys == ["total_size"])
  }

  /// What a layout says is what a checkpoint written by it is.
  @Test func writtenShardsOpen() throws {
    let temporary = try TemporaryDirectory()
    let layers = try (0..<12).map { layer in
      [
        [try tensor("layers.\(layer).w", 50 + layer), try tensor("layers.\(layer).w.absmax", 3)],
        [try tensor("layers.\(layer).norm", 5)],
      ]
    }
    let layout = try ShardLayout(layers: layers, maxShardSize: 200)
    for shard in layout.shards {
      var bytes = shard.header
      for tensor in shard.tensors { bytes += [UInt8](repeating: UInt8(tensor.byteCount), count: tensor.byteCount) }
      #expect(bytes.count == shard.size)
      try temporary.write(shard.name, bytes)
    }
    try temporary.write(try #require(layout.indexName), Array(layout.indexText().utf8))
    let checkpoint = try SafetensorsCheckpoint(path: temporary.path)
    #expect(checkpoint.warnings.isEmpty)
    #expect(checkpoint.tensors.map(\.name) == layers.flatMap { $0.flatMap { $0.map(\.name) } })
    #expect(checkpoint.files.map(\.size).reduce(0, +) == layout.size)
  }

  @Test func refusals() throws {
    let twice = try #require(throws: Failure.self) {
      _ = try ShardLayout(layers: [[[try tensor("a", 1)]], [[try tensor("a", 2)]]], maxShardSize: 1)
    }
    #expect(twice.code == .malformed && twice.tensor == "a")
    let reserved = try #require(throws: Failure.self) {
      _ = try ShardLayout(layers: [[[try tensor("__metadata__", 1)]]], maxShardSize: 1)
    }
    #expect(reserved.code == .malformed && reserved.tensor == "__metadata__")
    let half = Int.max / 2 + 1
    let overflow = try #require(throws: Failure.self) {
      _ = try ShardLayout(layers: [[[try tensor("a", half), try tensor("b", half)]]], maxShardSize: Int.max)
    }
    #expect(overflow.code == .malformed)
    let total = try #require(throws: Failure.self) {
      _ = try ShardLayout(layers: [[[try tensor("a", half)]], [[try tensor("b", half)]]], maxShardSize: 1)
    }
    #expect(total.code == .malformed)
    let nearlyAll = try #require(throws: Failure.self) {
      _ = try ShardLayout(layers: [[[try tensor("a", Int.max)]]], maxShardSize: 1)
    }
    #expect(nearlyAll.code == .malformed && nearlyAll.tensor == "a")
  }
}
