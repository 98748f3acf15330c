import Bytes
import Dispatch
import Testing

/// State that threads share and wait for.
@Suite struct MonitorTests {
  private struct Counter: Sendable {
    var value = 0
  }

  @Test func countsEverything() {
    let monitor = Monitor(Counter())
    DispatchQueue.concurrentPerform(iterations: 8) { _ in
      for _ in 0..<1000 { monitor.withLock { $0.value += 1 } }
    }
    #expect(monitor.withLock { $0.value } == 8000)
  }

  @Test func wakesWhoWaits() {
    let monitor = Monitor(Counter())
    let done = DispatchSemaphore(value: 0)
    DispatchQueue.global().async {
      let seen = monitor.wait { $0.value >= 3 ? $0.value : nil }
      #expect(seen == 3)
      done.signal()
    }
    for _ in 0..<3 { monitor.withLock { $0.value += 1 } }
    #expect(done.wait(timeout: .now() + 60) == .success)
  }
}

/// Vectors of FIPS 180-2, cut in every way.
@Suite struct SHA256Tests {
  static let vectors: [(String, Int, String)] = [
    ("", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ("abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
      "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    ),
    ("a", 1_000_000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
  ]

  @Test(arguments: vectors, [1, 63, 64, 65, 1 << 20])
  func vector(_ row: (text: String, times: Int, digest: String), _ piece: Int) {
    if row.times > 1, piece == 1 { return }
    let bytes = Array(String(repeating: row.text, count: row.times).utf8)
    var hasher = SHA256Hasher()
    // A second round shows that the hasher starts anew.
    for _ in 0..<2 {
      for start in stride(from: 0, to: bytes.count, by: piece) {
        hasher.update(bytes.span.bytes.extracting(start..<min(start + piece, bytes.count)))
      }
      #expect(hasher.finish() == row.digest)
    }
  }
}
