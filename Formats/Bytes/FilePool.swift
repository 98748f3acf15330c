import Synchronization

/// The files of one checkpoint, of which only the few last used are open, so that a checkpoint of
/// hundreds of shards needs no more descriptors than one of four.
package final class FilePool: Sendable {
  private static let capacity = 4

  private let directory: InputDirectory?
  private let names: [String]
  private let state: Mutex<State>

  private struct State {
    /// As at the first opening; a file that is opened again must be the same one, unchanged.
    var identities: [FileIdentity?]
    /// The one used last is at the end.
    var open: [(index: Int, file: InputFile)] = []
  }

  package init(directory: InputDirectory, names: [String]) {
    self.directory = directory
    self.names = names
    state = Mutex(State(identities: Array(repeating: nil, count: names.count)))
  }

  /// A pool of one file that stays open.
  package init(file: InputFile) {
    directory = nil
    names = [file.name]
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
      guard let directory else { throw Failure(.internal, "no file \(index) in a pool of one") }
      let file = try directory.open(names[index])
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
