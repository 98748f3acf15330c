package import Bytes
package import Tensors

/// What processes that trained a model together saved, each its part.
package protocol TrainingCheckpoint: TensorSource {
  /// The directory of the files as the user named it.
  var path: String { get }
  /// Names of the files that hold tensors or say where they are, relative to the directory.
  var fileNames: [String] { get }
  /// Findings that are worth knowing and no errors, one line each.
  var warnings: [Warning] { get }
  /// Positions in `tensors` of those that are one and the same, two or more at a time.
  var tied: [[Int]] { get }
  /// Device, inode and times of every file, as when it was opened.
  var identities: [FileIdentity] { get }

  /// The position in `tensors` of a name.
  func index(of name: TensorName) -> Int?
  /// A file that holds some of a tensor and the offset in it of the first byte there.
  func location(of index: Int) -> (file: String, offset: Int)
  /// The open file and the offset in it of a tensor's first byte; nil when it lies in parts.
  func place(of index: Int) throws(Failure) -> (file: InputFile, offset: Int)?
  /// - Throws: `io` when a file is no longer what it was when it was opened.
  func checkUnchanged() throws(Failure)
}

extension TrainingCheckpoint {
  package var tied: [[Int]] { [] }
}
