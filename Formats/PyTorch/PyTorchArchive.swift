public import Bytes

/// What `torch.save` wrote: the graph of a pickle, and the storages of its tensors. Opening reads no tensor's data.
public struct PyTorchArchive: Sendable {
  /// The file, or the part of one that the archive is.
  public let slice: FileSlice
  /// What was saved, all of it.
  public let graph: PickleGraph
  /// Written by a PyTorch before 1.6, or as by one.
  public let isLegacy: Bool
  /// The archive's entries; nil for a legacy file.
  public let zip: ZipArchive?
  let storages: PyTorchStorages

  public init(_ file: InputFile, limits: PickleLimits = PickleLimits()) throws(Failure) {
    try self.init(FileSlice(file), limits: limits)
  }

  /// - Throws: `unsupported` for a file of another kind that is known by its first bytes, and for what other programs
  ///   and functions of PyTorch write; `malformed` when anything in it contradicts something else.
  public init(_ slice: FileSlice, limits: PickleLimits = PickleLimits()) throws(Failure) {
    self.slice = slice
    do throws(Failure) {
      let beginning = try slice.bytes(in: 0..<min(FileContent.length, slice.length))
      switch try Self.kind(beginning, slice) {
      case .zip:
        let zip = try ZipArchive(slice)
        let folder = try TorchFolder(zip)
        graph = try PickleGraph(zip.slice(of: folder.pickle), limits: limits)
        storages = try folder.placed(PyTorchStorages(graph), in: slice)
        self.zip = zip
        isLegacy = false
      case .legacy:
        let file = try LegacyFile(slice, limits: limits)
        graph = file.graph
        storages = file.storages
        zip = nil
        isLegacy = true
      }
    } catch { throw error.located(file: slice.file.name) }
  }

  private enum Kind { case zip, legacy }

  private static func kind(_ beginning: [UInt8], _ slice: FileSlice) throws(Failure) -> Kind {
    if beginning.starts(with: [0x50, 0x4B, 0x03, 0x04]) || beginning.starts(with: [0x50, 0x4B, 0x05, 0x06]) {
      return .zip
    }
    if try LegacyFile.isLikely(beginning, slice) { return .legacy }
    let found = FileContent.signature(beginning)
    if found == "a tar archive" {
      throw Failure(
        .unsupported,
        "is a tar archive, as PyTorch before 0.2 wrote and NeMo writes: save its weights with torch.save of a current "
          + "PyTorch")
    }
    if let found {
      let isModel = ["GGUF", "GGML", "pickle", "HDF5", "LFS"].contains { found.contains($0) }
      throw Failure(isModel ? .unsupported : .malformed, "is no file of torch.save but \(found)")
    }
    if let text = FileContent.text(beginning) { throw Failure(.malformed, "is no file of torch.save but \(text)") }
    throw Failure(.malformed, "is neither a ZIP archive nor a series of pickles, which torch.save writes", offset: 0)
  }

  /// True when a file begins as those of `torch.save` do: not yet that it is one.
  public static func isLikely(_ file: InputFile) throws(Failure) -> Bool {
    let beginning = try file.bytes(in: 0..<min(FileContent.length, file.size))
    if beginning.starts(with: [0x50, 0x4B, 0x03, 0x04]) { return true }
    return try LegacyFile.isLikely(beginning, FileSlice(file))
  }
}
