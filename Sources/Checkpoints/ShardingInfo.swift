import Bytes
import JSON
import PyTorch
import Safetensors
import Tensors

/// What files of safetensors say of the parts of tensors in them, when `torch.distributed.checkpoint` wrote them:
/// `{"NAME": {"saved_offsets": [row, column]}}`, as text under one key of their metadata.
enum ShardingInfo {
  private static let key = "DCP_SHARDING_INFO"
  private static let indexEnding = ".safetensors.index.json"

  /// Whether the processes' shards lie in a directory, and no model in one piece.
  static func isThere(in directory: InputDirectory) throws(Failure) -> Bool {
    let names = try directory.names()
    guard let first = names.first(where: DistributedCheckpoint.isShard),
      !names.contains(where: { $0 == "model.safetensors" || $0.hasSuffix(indexEnding) }),
      let header = try? SafetensorsHeader(of: directory.open(first))
    else { return false }
    return header.metadata.contains { $0.key == key }
  }

  /// - Throws: `malformed` for a file that does not say where its parts belong.
  static func parts(_ file: InputFile) throws(Failure) -> [DistributedPart] {
    let header = try SafetensorsHeader(of: file)
    do throws(Failure) {
      guard let text = header.metadata.first(where: { $0.key == key })?.value else {
        throw Failure(.malformed, "has no '\(key)' in its metadata, which says where its parts belong")
      }
      let places = try JSONValue(parsing: Array(text.utf8), .python, file: file.name)
      var parts: [DistributedPart] = []
      for (index, info) in header.tensors.enumerated() {
        let offsets = places[info.name.string]?["saved_offsets"]?.array?.map { $0.int ?? -1 } ?? []
        guard offsets.count == info.shape.count, offsets.allSatisfy({ $0 >= 0 }),
          places[info.name.string] != nil
        else {
          throw Failure(
            .malformed, "has no place of \(counted(info.shape.count, "number")) in '\(key)'", tensor: info.name.string)
        }
        parts.append(DistributedPart(info, offsets: offsets, start: header.range(of: index).lowerBound))
      }
      return parts
    } catch { throw error.located(file: file.name) }
  }
}
