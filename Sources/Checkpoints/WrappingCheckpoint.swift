package import Bytes
package import JSON
import PackedWeights
package import Tensors

/// A checkpoint around a checkpoint: other tensors from the same files. It says where its tensors lie; everything else is
/// the base's.
package protocol WrappingCheckpoint: StoredCheckpoint {
  var base: any StoredCheckpoint { get }
}

extension WrappingCheckpoint {
  package var files: CheckpointFiles { base.files }
  package var container: String { base.container }
  package var dequantizes: String? { base.dequantizes }
  package var madeConfig: JSONValue? { base.madeConfig }
  package var path: String { base.path }
  package var directory: InputDirectory? { base.directory }
  package var fileNames: [String] { base.fileNames }
  package var warnings: [Warning] { base.warnings }
  package var identities: [FileIdentity] { base.identities }
  package var headerTexts: [(key: String, value: String)] { base.headerTexts }
  package func metadata(isWhole: Bool) throws(Failure) -> [MetadataEntry] { try base.metadata(isWhole: isWhole) }
  package func checkUnchanged() throws(Failure) { try base.checkUnchanged() }
}

/// A checkpoint some of whose tensors are not there.
package struct ReducedCheckpoint: WrappingCheckpoint {
  package let base: any StoredCheckpoint
  package let tensors: [TensorInfo]
  /// For each of `tensors` its position in the base.
  private let kept: [Int]
  private let positions: [Int: Int]

  /// - Parameter gone: positions of those that are not there.
  package init(_ base: any StoredCheckpoint, without gone: Set<Int>) {
    self.base = base
    kept = base.tensors.indices.filter { !gone.contains($0) }
    tensors = kept.map { base.tensors[$0] }
    positions = Dictionary(uniqueKeysWithValues: kept.enumerated().map { ($1, $0) })
  }

  package func index(of name: TensorName) -> Int? { base.index(of: name).flatMap { positions[$0] } }
  package func location(of index: Int) -> (file: String, offset: Int) { base.location(of: kept[index]) }
  package func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int)? {
    try base.place(of: kept[index])
  }
  package func typeName(of index: Int) -> String { base.typeName(of: kept[index]) }
  package func storedByteCount(of index: Int) -> Int { base.storedByteCount(of: kept[index]) }
  package func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    try base.read(kept[index], at: offset, into: &destination)
  }
}
