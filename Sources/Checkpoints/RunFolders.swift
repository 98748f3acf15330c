package import Bytes

/// The checkpoints of a training run: folders such as `checkpoint-500`, `global_step1000`, `global_step_20`.
package enum RunFolders {
  private static let beginnings = ["checkpoint-", "global_step_", "global_step"]

  /// The step of a folder's name; nil for another folder.
  private static func step(_ name: String) -> Int? {
    for beginning in beginnings where name.hasPrefix(beginning) {
      if let step = Int(name.dropFirst(beginning.count)), step >= 0 { return step }
    }
    return nil
  }

  static func isCheckpoint(_ name: String) -> Bool { step(name) != nil }

  /// That a directory has no model but such folders; nil where it has none, or weights.
  package static func failure(at path: String) -> Failure? {
    guard let directory = try? InputDirectory(path: path), let entries = try? directory.entries(),
      !entries.contains(where: { $0.name.hasSuffix(".safetensors") || $0.name.hasSuffix(".safetensors.index.json") })
    else { return nil }
    let found = entries.filter { $0.kind == .directory }.compactMap { entry in
      step(entry.name).map { (name: entry.name, step: $0) }
    }
    guard let newest = found.max(by: { $0.step < $1.step }) else { return nil }
    return Failure(
      .missing,
      "holds no model, only \(counted(found.count, "checkpoint")) of a training run: name one of them, such as the "
        + "newest, '\(path.hasSuffix("/") ? path : path + "/")\(newest.name.printable(limit: 256))'", file: path)
  }
}
