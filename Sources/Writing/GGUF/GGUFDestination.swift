package import Bytes
import Checkpoints

/// A GGUF file, or its parts beside each other, with the manifest beside them.
package struct GGUFDestination: Destination {
  /// Whether files of the same name in another number of parts are replaced too.
  package var replacesOthers = true

  package init(replacesOthers: Bool = true) {
    self.replacesOthers = replacesOthers
  }

  private func manifestName(_ plan: WritePlan) -> String { GGUFSidecar.name(for: plan.container.files[0].name) }

  package func fileNames(_ plan: WritePlan) -> [String] { plan.container.files.map(\.name) + [manifestName(plan)] }

  /// The path of the file that llama.cpp is given: the first of several parts.
  package func reportedPath(_ path: String, _ plan: WritePlan) -> String {
    String(path.dropLast(FileName.last(of: path).count)) + plan.container.files[0].name
  }

  package func otherByteCount() -> Int { 0 }

  package func stage(
    _ path: String, _ plan: WritePlan, replacing: Bool, inputs: [FileIdentity]
  ) throws(Failure) -> any Stage {
    let place = GGUFPlace(path: path, names: plan.container.files.map(\.name))
    let manifest = manifestName(plan)
    var oldParts: [String] = []
    if replacing {
      try place.checkReplaced()
      if replacesOthers { oldParts = try place.otherParts() }
    }
    let staged = try StagedFiles(
      path: path, names: fileNames(plan), replacing: replacing, orphans: place.isOrphan(manifest) ? [manifest] : [],
      inputs: inputs)
    return GGUFStage(staged) { place.remove(oldParts, inputs: inputs) }
  }

  private final class GGUFStage: Stage {
    private var staged: StagedFiles?
    let files: StagedDirectory.Files
    private let removeOld: () -> [Warning]

    init(_ staged: consuming StagedFiles, removeOld: @escaping () -> [Warning]) {
      files = staged.files
      self.staged = consume staged
      self.removeOld = removeOld
    }

    func commit() throws(Failure) -> [Warning] {
      guard let staged = staged.take() else { throw Failure(.internal, "committed twice") }
      try staged.commit()
      return removeOld()
    }
  }

  package func writeOthers(_ plan: WritePlan, into files: StagedDirectory.Files, sha256: Bool) -> [FileDigests] { [] }

  package func write(
    _ manifest: ManifestWriter, _ plan: WritePlan, into files: StagedDirectory.Files, sha256: Bool
  ) throws(Failure) {
    try manifest.writeManifest(manifestName(plan), into: files, sha256: sha256)
  }
}
