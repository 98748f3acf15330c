import Bytes
import Checkpoints
import Tensors
import Tokenizers

/// The search for files in a checkpoint's directory that its manifest does not list.
extension DigestCheck {
  func findExtraFiles(_ directory: InputDirectory, _ result: inout Verify.Result) throws(Failure) {
    let known = Set(manifest.files.map { TensorName($0.name) })
    for (name, kind) in try directory.entries() where !known.contains(TensorName(name)) {
      if name == Manifest.fileName || name == Manifest.checksumsName { continue }
      if kind == .directory, isOfModel(name), let folder = try? directory.folder(name) {
        try findExtraFiles(folder, name, known, &result)
        continue
      }
      // Version control and download tools keep their own state there.
      if name.hasPrefix(".") || kind == .directory {
        result.notChecked.append("'\(name)', which the manifest does not list")
      } else {
        result.add(file: name, "is not in the manifest")
      }
    }
  }

  /// A folder that holds something listed, and the one that transformers looks for whatever is listed.
  private func isOfModel(_ folder: String) -> Bool {
    folder == ChatTemplateFiles.folder || manifest.files.contains { $0.name.hasPrefix(folder + "/") }
  }

  private func findExtraFiles(
    _ folder: InputDirectory, _ path: String, _ known: Set<TensorName>, _ result: inout Verify.Result
  ) throws(Failure) {
    for (name, kind) in try folder.entries() {
      let own = "\(path)/\(name)"
      if kind == .directory, isOfModel(own) {
        try findExtraFiles(folder.folder(name), own, known, &result)
      } else if kind == .directory {
        result.notChecked.append("'\(own)', which the manifest does not list")
      } else if !known.contains(TensorName(own)) {
        result.add(file: own, "is not in the manifest")
      }
    }
  }
}
