import Bytes
import Foundation
import PyTorch
import TestSupport

/// Opens bytes as a file of a name.
func opened(_ bytes: [UInt8], in directory: TemporaryDirectory) throws -> PyTorchFile {
  let path = directory.path("m.bin")
  if directory.exists("m.bin") {
    // In the place of what was there: a file that is emptied first is written out to the disk by some file systems.
    try directory.overwrite("m.bin", at: 0, with: bytes)
    let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
    try file.truncate(atOffset: UInt64(bytes.count))
    try file.close()
  } else {
    try directory.write("m.bin", bytes)
  }
  return try PyTorchFile(InputFile(path: path, name: "m.bin"))
}

/// What a pickle alone describes, from an archive around it.
func graph(_ pickle: [UInt8], limits: PickleLimits = PickleLimits()) throws -> PickleGraph {
  let directory = try TemporaryDirectory()
  let path = try directory.write("m.bin", TorchBuilder.zip(pickle))
  return try PyTorchArchive(InputFile(path: path, name: "m.bin"), limits: limits).graph
}
