import Synchronization

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// Signals that ask the process to stop, turned into an error at the next safe place.
public enum Interruption {
  /// SIGINT, SIGTERM and SIGHUP are remembered; a second one ends the process at once. A full disk quota
  /// or a closed pipe becomes an error of the call that met it, not a signal.
  public static func install() {
    received.store(0, ordering: .relaxed)
    for number in [SIGINT, SIGTERM, SIGHUP] where !isIgnored(number) {
      signal(number) { number in
        let earlier = received.exchange(number, ordering: .relaxed)
        if earlier != 0 { _exit(128 + number) }
      }
    }
    for number in [SIGPIPE, SIGXFSZ] { signal(number, SIG_IGN) }
  }

  /// Ignored by whoever started the process, as `nohup` does: that stays so.
  private static func isIgnored(_ number: Int32) -> Bool {
    var action = sigaction()
    guard unsafe sigaction(number, nil, &action) == 0 else { return false }
    #if canImport(Glibc)
      let handler = unsafe unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self)
    #else
      let handler = unsafe unsafeBitCast(action.__sigaction_u.__sa_handler, to: Int.self)
    #endif
    return handler == 1  // SIG_IGN, which is an address on every system
  }

  /// - Throws: `hangup`, `interrupted` or `terminated` once a signal has arrived.
  public static func check() throws(Failure) {
    switch received.load(ordering: .relaxed) {
    case 0: return
    case SIGHUP: throw Failure(.hangup, "stopped by a hangup; nothing was left behind")
    case SIGINT: throw Failure(.interrupted, "interrupted; nothing was left behind")
    default: throw Failure(.terminated, "terminated; nothing was left behind")
    }
  }
}

/// The last signal, or 0.
private let received = Atomic<Int32>(0)

/// Ends the process.
public func exitProcess(_ status: Int32) -> Never { exit(status) }
