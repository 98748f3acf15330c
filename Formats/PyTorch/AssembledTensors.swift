package import Bytes
package import Tensors

/// The tensors of files that belong together, each put together of its parts as it is read.
package struct AssembledTensors: Sendable {
  let tensors: [TensorInfo]
  /// Names of the files, by the positions that parts have.
  let fileNames: [String]
  private let assembled: [AssembledTensor]
  private let order: KeyOrder
  private let pool: FilePool
  private let compressed = CompressedParts()

  init(_ assembled: [AssembledTensor], in fileNames: [String], _ pool: FilePool) {
    let tensors = assembled.map(\.info)
    self.tensors = tensors
    self.fileNames = fileNames
    self.assembled = assembled
    self.pool = pool
    order = KeyOrder(count: tensors.count) { tensors[$0].name.string }
  }

  func index(of name: TensorName) -> Int? { order.position(of: name.string) { tensors[$0].name.string } }

  /// Nil for a tensor without elements.
  func location(of index: Int) -> (file: String, offset: Int)? {
    assembled[index].location.map { (fileNames[$0.file], $0.offset) }
  }

  func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int)? {
    guard let place = assembled[index].place else { return nil }
    return (try pool.file(place.file), place.offset)
  }

  func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    do throws(Failure) {
      try assembled[index].read(at: offset, into: &destination) { (part) throws(Failure) in
        let file = try pool.file(part.file)
        return try part.compressed.map { (range) throws(Failure) in try compressed.open(part, range, in: file) }
          ?? (file, part.view)
      }
    } catch { throw error.located(tensor: tensors[index].name.string) }
  }

  var identities: [FileIdentity] { pool.identities }

  func checkUnchanged() throws(Failure) {
    for position in fileNames.indices { try pool.file(position).checkUnchanged() }
  }
}

/// A checkpoint whose tensors are all put together so.
package protocol AssembledCheckpoint: TrainingCheckpoint {
  var assembled: AssembledTensors { get }
}

extension AssembledCheckpoint {
  package var tensors: [TensorInfo] { assembled.tensors }
  package var fileNames: [String] { assembled.fileNames }
  package var identities: [FileIdentity] { assembled.identities }

  package func index(of name: TensorName) -> Int? { assembled.index(of: name) }
  package func location(of index: Int) -> (file: String, offset: Int) {
    assembled.location(of: index) ?? (fileNames[0], 0)
  }
  package func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int)? {
    try assembled.place(of: index)
  }
  package func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    try assembled.read(index, at: offset, into: &destination)
  }
  package func checkUnchanged() throws(Failure) { try assembled.checkUnchanged() }
}
