/// How the tests were compiled.
public enum Build {
  /// False for a debug build, where parsing 100 MB takes minutes.
  public static var isOptimized: Bool {
    #if DEBUG
      false
    #else
      true
    #endif
  }
}
