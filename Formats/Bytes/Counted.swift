/// `1 tensor`, `2 tensors`.
///
/// - Parameter many: where another `s` is not all.
public func counted(_ count: Int, _ one: String, _ many: String? = nil) -> String {
  "\(count) \(count == 1 ? one : many ?? one + "s")"
}
