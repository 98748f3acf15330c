public import Bytes
public import Tensors

/// One safetensors file, open for reading. Opening reads the header only.
public struct SafetensorsFile: TensorSource {
  public let file: InputFile
  public let header: SafetensorsHeader

  public init(_ file: InputFile) throws(Failure) {
    self.file = file
    header = try SafetensorsHeader(of: file)
  }

  public init(path: String) throws(Failure) {
    try self.init(InputFile(path: path))
  }

  public var tensors: [TensorInfo] { header.tensors }

  public func read(
    _ index: Int, at offset: Int, into destination: inout MutableRawSpan
  ) throws(Failure) {
    let range = header.range(of: index)
    guard offset >= 0, destination.byteCount <= range.count - offset else {
      throw Failure(
        .internal, "\(destination.byteCount) bytes at \(offset) are outside the tensor's \(range.count)",
        file: file.name,
        tensor: tensors[index].name.string)
    }
    try file.read(at: range.lowerBound + offset, into: &destination)
  }

  /// A copy of one tensor's bytes.
  ///
  /// - Throws: `missing` when there is no tensor of that name.
  public func bytes(of name: TensorName) throws(Failure) -> [UInt8] {
    try file.bytes(in: header.range(of: position(of: name)))
  }

  /// The file as memory, for access without copies.
  public func map() throws(Failure) -> MappedSafetensors {
    MappedSafetensors(header: header, name: file.name, mapping: try file.map())
  }

  private func position(of name: TensorName) throws(Failure) -> Int {
    guard let index = header.index(of: name) else {
      throw Failure(.missing, "there is no such tensor", file: file.name, tensor: name.string)
    }
    return index
  }
}

/// A safetensors file mapped into memory: tensors as spans over the file's own pages.
///
/// Should the file be truncated by somebody while it is mapped, touching the lost part is a bus error;
/// `SafetensorsFile.read` reports an error instead.
public struct MappedSafetensors: Sendable {
  public let header: SafetensorsHeader
  private let name: String
  private let mapping: MappedFile

  init(header: SafetensorsHeader, name: String, mapping: MappedFile) {
    self.header = header
    self.name = name
    self.mapping = mapping
  }

  /// The bytes of the tensor at a position of `header.tensors`. Data need not be aligned: use
  /// `unsafeLoadUnaligned`, or check the address.
  @_lifetime(borrow self)
  public func bytes(of index: Int) -> RawSpan {
    mapping.bytes.extracting(header.range(of: index))
  }

  /// - Throws: `missing` when there is no tensor of that name.
  @_lifetime(borrow self)
  public func bytes(of name: TensorName) throws(Failure) -> RawSpan {
    let range = try range(of: name)
    return mapping.bytes.extracting(range)
  }

  private func range(of name: TensorName) throws(Failure) -> Range<Int> {
    guard let index = header.index(of: name) else {
      throw Failure(.missing, "there is no such tensor", file: self.name, tensor: name.string)
    }
    return header.range(of: index)
  }
}
