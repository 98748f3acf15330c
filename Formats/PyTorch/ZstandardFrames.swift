import Bytes
import CZstd

/// What a part of a file is when it is decompressed: one frame of Zstandard after the other, nothing else.
@safe struct ZstandardFrames: ~Copyable {
  /// Bytes that are read, and made, at once: one block of a frame has as many at most.
  private static let batchSize = 128 << 10
  /// Of the window that a frame looks back on, as a power of two: what the command `zstd` takes too.
  private static let windowLimit: Int32 = 27

  // Owned by this value alone.
  private let context: OpaquePointer

  init() throws(Failure) {
    guard let context = unsafe ZSTD_createDCtx() else { throw Failure(.io, "out of memory") }
    unsafe self.context = unsafe context
    _ = unsafe ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, Self.windowLimit)
  }

  deinit { _ = unsafe ZSTD_freeDCtx(context) }

  /// - Parameter limit: of bytes that come out.
  /// - Throws: `malformed` for data that are cut off, damaged, followed by others, or more than the limit.
  consuming func expanded(_ slice: FileSlice, limit: Int) throws(Failure) -> InputFile {
    do throws(Failure) { return try expand(slice, limit) } catch { throw error.located(file: slice.file.name) }
  }

  private func expand(_ slice: FileSlice, _ limit: Int) throws(Failure) -> InputFile {
    var output = try TemporaryFile()
    var room = [UInt8](repeating: 0, count: Self.batchSize)
    var position = 0
    /// What the current frame still wants, 0 at its end.
    var wanted = 1
    while position < slice.length {
      let batch = try slice.bytes(in: position..<min(slice.length, position + Self.batchSize))
      var used = 0
      while used < batch.count || wanted > 0 {
        let (step, made) = try step(batch, &used, &room, offset: slice.offset + position)
        guard output.count + made <= limit else {
          throw Failure(
            .malformed, "is compressed and has more than the \(limit) bytes that its tensor needs", offset: slice.offset
          )
        }
        try unsafe output.append(room.span.bytes.extracting(0..<made))
        wanted = step
        if used == batch.count, made < room.count { break }
      }
      position += batch.count
    }
    guard wanted == 0 else {
      throw Failure(.malformed, "is compressed and cut off", offset: slice.offset + slice.length)
    }
    return try output.finish(name: slice.file.name)
  }

  /// - Returns: what the frame still wants, and the number of bytes in the room.
  private func step(
    _ batch: [UInt8], _ used: inout Int, _ room: inout [UInt8], offset: Int
  ) throws(Failure) -> (wanted: Int, made: Int) {
    let start = used
    var made = 0
    var read = 0
    let capacity = room.count
    let result = unsafe batch.withUnsafeBytes { source in
      unsafe room.withUnsafeMutableBytes { target in
        var input = unsafe ZSTD_inBuffer(src: source.baseAddress, size: source.count, pos: start)
        var output = unsafe ZSTD_outBuffer(dst: target.baseAddress, size: capacity, pos: 0)
        let result = unsafe ZSTD_decompressStream(context, &output, &input)
        (read, made) = unsafe (input.pos, output.pos)
        return result
      }
    }
    guard ZSTD_isError(result) == 0 else {
      let reason = unsafe String(cString: ZSTD_getErrorName(result))
      throw Failure(.malformed, "is no data of Zstandard as it says: \(reason)", offset: offset + start)
    }
    used = read
    return (result, made)
  }
}
