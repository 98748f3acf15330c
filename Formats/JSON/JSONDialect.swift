/// What counts as JSON.
public enum JSONDialect: Sendable {
  /// RFC 8259 and nothing else: headers, indexes, manifests.
  case strict
  /// What Python's `json` writes too: bare `NaN`, `Infinity` and `-Infinity`, and escapes that are half of a surrogate
  /// pair. Configurations, tokenizers and generation settings are written so.
  case python
}
