import CXXHash

#if canImport(CommonCrypto)
  import CommonCrypto
#else
  import CNettle
#endif

/// XXH64, which other tools' lists of digests use; what Nibble writes itself is XXH3.
@safe public struct XXH64Hasher: ~Copyable, @unchecked Sendable {
  // Owned by this value alone; exclusive access to the value is exclusive access to the state.
  private let state: OpaquePointer

  public init() {
    guard let state = unsafe nibble_xxh64_create() else { fatalError("out of memory") }
    unsafe self.state = unsafe state
  }

  deinit { unsafe nibble_xxh64_destroy(state) }

  public mutating func update(_ bytes: RawSpan) {
    unsafe bytes.withUnsafeBytes { pointer in unsafe nibble_xxh64_update(state, pointer.baseAddress, pointer.count) }
  }

  /// 16 lower-case hexadecimal digits. The hasher starts anew afterwards.
  public mutating func finish() -> String {
    let digest = unsafe nibble_xxh64_digest(state)
    unsafe nibble_xxh64_reset(state)
    return digest.hexadecimal
  }
}

/// SHA-1, which other tools' lists of digests use: no longer proof against forgery.
@safe public struct SHA1Hasher: ~Copyable, @unchecked Sendable {
  #if canImport(CommonCrypto)
    private typealias Context = CC_SHA1_CTX
  #else
    private typealias Context = sha1_ctx
  #endif
  // On the heap: the libraries take a pointer at every call.
  private let context = UnsafeMutablePointer<Context>.allocate(capacity: 1)

  public init() {
    #if canImport(CommonCrypto)
      _ = unsafe CC_SHA1_Init(context)
    #else
      unsafe nettle_sha1_init(context)
    #endif
  }

  deinit { unsafe context.deallocate() }

  public mutating func update(_ bytes: RawSpan) {
    unsafe bytes.withUnsafeBytes { unsafe update($0) }
  }

  private mutating func update(_ bytes: UnsafeRawBufferPointer) {
    #if canImport(CommonCrypto)
      var rest = bytes
      while let start = rest.baseAddress, rest.count > 0 {
        let count = min(rest.count, 1 << 30)
        _ = unsafe CC_SHA1_Update(context, start, CC_LONG(count))
        unsafe rest = UnsafeRawBufferPointer(rebasing: rest[count...])
      }
    #else
      guard let start = bytes.baseAddress else { return }
      unsafe nettle_sha1_update(context, bytes.count, start.assumingMemoryBound(to: UInt8.self))
    #endif
  }

  /// The 20 bytes. The hasher starts anew afterwards.
  public mutating func finishBytes() -> [UInt8] {
    var digest = [UInt8](repeating: 0, count: 20)
    unsafe digest.withUnsafeMutableBufferPointer { buffer in
      guard let start = buffer.baseAddress else { return }
      #if canImport(CommonCrypto)
        _ = unsafe CC_SHA1_Final(start, context)
        _ = unsafe CC_SHA1_Init(context)
      #else
        unsafe nettle_sha1_digest(context, 20, start)
      #endif
    }
    return digest
  }

  /// 40 lower-case hexadecimal digits. The hasher starts anew afterwards.
  public mutating func finish() -> String { finishBytes().hexadecimal }
}
