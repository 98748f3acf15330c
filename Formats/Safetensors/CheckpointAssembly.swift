import Bytes
import JSON
import Tensors

/// The files and tensors of a checkpoint, collected while the headers are being read.
struct CheckpointAssembly {
  private(set) var files: [SafetensorsCheckpoint.File] = []
  private(set) var tensors: [TensorInfo] = []
  /// First byte of each tensor in its file.
  private(set) var offsets: [Int] = []
  /// The tensors' names in byte order; empty until `finish()`.
  private(set) var order = KeyOrder([])
  var warnings: [Warning] = []
  /// One of the files, opened and its header read before.
  let opened: SafetensorsFile?

  init(opened: SafetensorsFile? = nil) { self.opened = opened }

  mutating func add(_ file: InputFile) throws(Failure) {
    let isOpened = file.name == opened?.file.name && file.identity == opened?.file.identity
    let header = if isOpened, let opened { opened.header } else { try SafetensorsHeader(of: file) }
    let first = tensors.count
    if files.isEmpty { order = header.order }
    tensors.append(contentsOf: header.tensors)
    offsets.append(contentsOf: header.tensors.indices.map { header.range(of: $0).lowerBound })
    warnings.append(contentsOf: header.warnings.map { "\(list: [file.name]): \($0)" })
    files.append(
      .init(
        name: file.name, size: file.size, dataStart: header.dataStart, metadata: header.metadata,
        tensors: first..<tensors.count))
  }

  /// All names, each once.
  ///
  /// - Throws: `malformed` when two files hold a tensor of the same name.
  mutating func finish() throws(Failure) {
    warnings = Warning.grouped(warnings)
    // The names of one file are in order already.
    guard files.count > 1 else { return }
    order = KeyOrder(count: tensors.count) { tensors[$0].name.string }
    if let (first, second) = order.firstDuplicate {
      throw Failure(
        .malformed, "the tensor is in '\(files[fileIndex(of: first)].name)' too, allowed is one file",
        file: files[fileIndex(of: second)].name, tensor: tensors[second].name.string)
    }
  }

  /// Index and shards must say the same of every tensor. The files were added in the order of
  /// `index.files`.
  mutating func check(against index: ShardIndex, named indexName: String) throws(Failure) {
    // Both lists are in byte order: one walk finds what either lacks.
    var listed = index.order.positions.makeIterator()
    var entry = listed.next().map { Int($0) }
    for position in order.positions {
      let name = tensors[Int(position)].name.string
      let file = fileIndex(of: Int(position))
      if let current = entry, KeyOrder.compare(index.names[current], name) < 0 {
        throw notStored(index, current, indexName)
      }
      guard let current = entry, KeyOrder.compare(index.names[current], name) == 0 else {
        throw Failure(.malformed, "the tensor is not listed in '\(indexName)'", file: files[file].name, tensor: name)
      }
      let expected = Int(index.fileOfName[current])
      guard expected == file else {
        throw Failure(
          .malformed, "'\(indexName)' says the tensor is in '\(index.files[expected])', found in '\(files[file].name)'",
          file: files[file].name, tensor: name)
      }
      entry = listed.next().map { Int($0) }
    }
    if let entry { throw notStored(index, entry, indexName) }
    checkTotalSize(index, indexName)
  }

  private func notStored(_ index: ShardIndex, _ entry: Int, _ indexName: String) -> Failure {
    Failure(
      .malformed, "'\(indexName)' says the tensor is in this file, but no shard has it",
      file: index.files[Int(index.fileOfName[entry])], tensor: index.names[entry])
  }

  private func fileIndex(of tensor: Int) -> Int { files.position(ofTensor: tensor) }

  private mutating func checkTotalSize(_ index: ShardIndex, _ indexName: String) {
    var total = 0
    for tensor in tensors {
      // Each is within its file, so the sum stays far below overflow; saturate rather than assume.
      let (sum, overflowed) = total.addingReportingOverflow(tensor.byteCount)
      total = overflowed ? Int.max : sum
    }
    switch index.totalSize {
    case .absent: break
    case .bytes(let bytes) where bytes == total: break
    case .bytes(let bytes):
      warnings.append("\(indexName): metadata.total_size is \(bytes), the tensors have \(total) bytes")
    case .invalid(let text):
      warnings.append(
        "\(indexName): metadata.total_size is \(text.printable(limit: 64)), the tensors have \(total) bytes")
    }
  }
}

extension [SafetensorsCheckpoint.File] {
  /// The position of the file that holds a tensor.
  func position(ofTensor tensor: Int) -> Int {
    indices.partition { self[$0].tensors.upperBound <= tensor }
  }
}
