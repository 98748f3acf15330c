import Bytes
import Checkpoints
import Safetensors

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
      switch header.source {
      case .gguf(let metadata): try checkArchitecture(metadata, file: name)
      case .safetensors(let file): _ = try model(of: file)?.checkContents()
      }
    } catch {
      if error.code == .io { throw error }
      return "no loader takes the model: \(Warning(error))"
    }
    return nil
  }

  /// nil when the file is none of a model with a configuration.
  private func model(of file: SafetensorsFile) -> StoredModel? {
    let name = file.file.name
    let parent = String(path.dropLast(name.count))
    let directory = parent.isEmpty ? "." : parent
    guard let found = try? InputDirectory(path: directory), found.contains(StoredModel.configName),
      let format = try? CheckpointFormat.detect(directory), format.holdsSafetensors,
      let stored = try? StoredSafetensors(directory: found, opened: file), stored.fileNames.contains(name)
    else { return nil }
    return try? StoredModel(.safetensors(stored))
  }
}
