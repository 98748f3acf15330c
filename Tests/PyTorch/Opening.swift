import Bytes
import Foundation
import PyTorch
import TestSupport

/// Opens bytes as a file of a name.
func opened(_ bytes: [UInt8], in directory: TemporaryDirectory) throws -> PyTorchFile {
  // A new file each time: one that is emptied first is written out to the disk by some file systems.
  if directory.exists("m.bin") { try directory.remove("m.bin") }
  return try PyTorchFile(InputFile(path: directory.write("m.bin", bytes), name: "m.bin"))
}

/// What a pickle alone describes, from an archive around it.
func graph(_ pickle: [UInt8], limits: PickleLimits = PickleLimits()) throws -> PickleGraph {
  let directory = try TemporaryDirectory()
  let path = try directory.write("m.bin", TorchBuilder.zip(pickle))
  return try PyTorchArchive(InputFile(path: path, name: "m.bin"), limits: limits).graph
}
