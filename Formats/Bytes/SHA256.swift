#if canImport(CommonCrypto)
  import CommonCrypto
#else
  import CNettle
#endif

/// SHA-256 of bytes that arrive in pieces, by the system's library.
///
/// Unlike XXH3 it also tells a forged file from the real one, at about a tenth of the speed.
@safe public struct SHA256Hasher: ~Copyable, @unchecked Sendable {
  #if canImport(CommonCrypto)
    private typealias Context = CC_SHA256_CTX
  #else
    private typealias Context = sha256_ctx
  #endif
  // On the heap: the libraries take a pointer at every call.
  private let context = UnsafeMutablePointer<Context>.allocate(capacity: 1)

  public init() {
    #if canImport(CommonCrypto)
      _ = unsafe CC_SHA256_Init(context)
    #else
      unsafe nettle_sha256_init(context)
    #endif
  }

  deinit { unsafe context.deallocate() }

  public mutating func update(_ bytes: RawSpan) {
    unsafe bytes.withUnsafeBytes { unsafe update($0) }
  }

  private mutating func update(_ bytes: UnsafeRawBufferPointer) {
    guard let start = bytes.baseAddress else { return }
    #if canImport(CommonCrypto)
      var rest = bytes
      while let start = rest.baseAddress, rest.count > 0 {
        let count = min(rest.count, 1 << 30)
        _ = unsafe CC_SHA256_Update(context, start, CC_LONG(count))
        unsafe rest = UnsafeRawBufferPointer(rebasing: rest[count...])
      }
    #else
      unsafe nettle_sha256_update(context, bytes.count, start.assumingMemoryBound(to: UInt8.self))
    #endif
  }

  /// 64 lower-case hexadecimal digits. The hasher starts anew afterwards.
  public mutating func finish() -> String {
    var digest = [UInt8](repeating: 0, count: 32)
    unsafe digest.withUnsafeMutableBufferPointer { buffer in
      guard let start = buffer.baseAddress else { return }
      #if canImport(CommonCrypto)
        _ = unsafe CC_SHA256_Final(start, context)
        _ = unsafe CC_SHA256_Init(context)
      #else
        unsafe nettle_sha256_digest(context, 32, start)
      #endif
    }
    return digest.hexadecimal
  }
}

extension [UInt8] {
  /// Two lower-case digits for each byte.
  var hexadecimal: String {
    let digits = Array("0123456789abcdef".utf8)
    return String(decoding: flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
  }
}
