import Synchronization

/// The files of one checkpoint, of which only the few last used are open, so that a checkpoint of
/// hundreds of shards needs no more descriptors than one of four.
package final class FilePool: Sendable {
  private static let capacity = 4

  private let open: @Sendable (Int) throws(Failure) -> InputFile
  private let state: Mutex<State>

  private struct State {
    /// As at the first opening; a file that is opened again must be the same one, unchanged.
    var identities: [FileIdentity?]
    /// The one used last is at the end.
    var open: [(index: Int, file: InputFile)] = []
  }

  package convenience init(directory: InputDirectory, names: [String]) {
    self.init(identities: Array(repeating: nil, count: names.count)) { (index) throws(Failure) in
      try directory.open(names[index])
    }
  }

  /// - Parameters:
  ///   - identities: of files that have been looked at already.
  ///   - open: opens a file by its position among them.
  package init(
    identities: [FileIdentity?], open: @escaping @Sendable (_ index: Int) throws(Failure) -> InputFile
  ) {
    self.open = open
    state = Mutex(State(identities: identities))
  }

  /// A pool of one file that stays open.
  package init(file: InputFile) {
    open = { (_) throws(Failure) in file }
    state = Mutex(State(identities: [file.identity], open: [(0, file)]))
  }

  /// The open file; it stays open as long as the caller holds it.
  package func file(_ index: Int) throws(Failure) -> InputFile {
    try state.withLock { (state) throws(Failure) in
      if let position = state.open.lastIndex(where: { $0.index == index }) {
        let entry = state.open[position]
        if position != state.open.count - 1 {
          state.open.remove(at: position)
          state.open.append(entry)
        }
        return entry.file
      }
      let file = try open(index)
      if let identity = state.identities[index], identity != file.identity {
        throw Failure(.io, "was replaced or changed while it was being read", file: file.name)
      }
      state.identities[index] = file.identity
      if state.open.count == Self.capacity { state.open.removeFirst() }
      state.open.append((index, file))
      return file
    }
  }

  /// The identities of all files that were opened, as they were then.
  package var identities: [FileIdentity] { state.withLock { $0.identities.compactMap(\.self) } }
}
