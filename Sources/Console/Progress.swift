import Bytes
import Synchronization

/// How far a run has come, told on standard error: a bar on a terminal, elsewhere a plain line every
/// five seconds.
public final class Progress: Sendable {
  public enum Style: Sendable { case silent, automatic }

  private struct State {
    var done = 0
    var lastReport: Double
    var hasBar = false
  }

  private let activity: String
  private let total: Int
  private let started = monotonicSeconds()
  private let isSilent: Bool
  private let isTerminal = StandardStream.error.isTerminal
  private let state: Mutex<State>

  /// - Parameters:
  ///   - activity: "quantizing".
  ///   - total: bytes that `advance` will add up to.
  public init(_ activity: String, total: Int, style: Style) {
    self.activity = activity
    self.total = total
    isSilent = style == .silent
    state = Mutex(State(lastReport: started))
  }

  public var seconds: Double { monotonicSeconds() - started }

  public func advance(by bytes: Int) {
    let now = isSilent ? 0 : monotonicSeconds()
    let line: String? = state.withLock { state in
      state.done += bytes
      guard !isSilent, now - state.lastReport >= (isTerminal ? 0.1 : 5) else { return nil }
      state.lastReport = now
      state.hasBar = isTerminal
      return text(done: state.done, seconds: now - started)
    }
    // A report that cannot be written is no reason to stop.
    if let line { try? StandardStream.error.write(isTerminal ? "\r\u{1B}[K" + line : line + "\n") }
  }

  /// Removes the bar.
  public func finish() {
    let hadBar = state.withLock { $0.hasBar }
    if hadBar { try? StandardStream.error.write("\r\u{1B}[K") }
  }

  private func text(done: Int, seconds: Double) -> String {
    let fraction = total > 0 ? min(1, Double(done) / Double(total)) : 1
    let rate = seconds > 0 ? Double(done) / seconds : 0
    let left = rate > 0 ? Double(max(0, total - done)) / rate : 0
    let percent = String(Int(fraction * 100))
    let facts =
      "\(String(repeating: " ", count: 3 - percent.count))\(percent) %  \(byteText(Int(rate)))/s  \(clock(left)) left"
    guard isTerminal else { return "\(activity): \(byteText(done)) of \(byteText(total)),\(facts)" }
    let room = min(40, StandardStream.error.columns - activity.count - facts.count - 6)
    guard room >= 8 else { return "\(activity)\(facts)" }
    let filled = Int(Double(room) * fraction)
    return
      "\(activity) [\(String(repeating: "=", count: filled))\(String(repeating: " ", count: room - filled))]\(facts)"
  }

  private func clock(_ seconds: Double) -> String {
    let whole = Int(min(seconds.rounded(.up), 359_999))
    let rest = whole % 60
    let tail = (rest < 10 ? "0" : "") + String(rest)
    guard whole >= 3600 else { return "\(whole / 60):\(tail)" }
    let minutes = whole / 60 % 60
    return "\(whole / 3600):\(minutes < 10 ? "0" : "")\(minutes):\(tail)"
  }
}
