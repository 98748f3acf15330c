/// The rules for what counts as JSON.
public enum JSONDialect: Sendable {
  /// RFC 8259 and nothing else: headers, indexes, manifests.
  case strict
  /// JSON as Python's `json` writes it too: bare `NaN`, `Infinity` and `-Infinity`, and escapes that are half of a
  /// surrogate pair. Configurations, tokenizers and generation settings are written so.
  case python
}
