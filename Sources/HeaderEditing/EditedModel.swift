import Bytes
import Checkpoints

/// The model that an edited file belongs to.
struct EditedModel {
  let path: String

  /// A warning that no loader takes the model, whatever has been edited; nil when nothing is known to be wrong.
  ///
  /// By headers and configuration alone. A file that lies by itself, and one beside other models' files, is held to
  /// nothing.
  func warning(_ header: EditedHeader) throws(Failure) -> Warning? {
    let name = FileName.last(of: path)
    do throws(Failure) {
      if let metadata = header.metadata {
        try checkArchitecture(metadata, file: name)
      } else if let model = model(of: name) {
        _ = try model.checkContents()
      }
    } catch {
      if error.code == .io { throw error }
      return "no loader takes the model: \(Warning(error))"
    }
    return nil
  }

  /// nil when the file is none of a model with a configuration.
  private func model(of name: String) -> StoredModel? {
    let parent = String(path.dropLast(name.count))
    let directory = parent.isEmpty ? "." : parent
    guard let found = try? InputDirectory(path: directory), found.contains(StoredModel.configName),
      let model = try? StoredModel(path: directory), model.checkpoint.fileNames.contains(name)
    else { return nil }
    return model
  }
}
