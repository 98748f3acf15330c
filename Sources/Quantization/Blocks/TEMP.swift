// swift-format-ignore
public enum BlockType: String, Sendable, CaseIterable { case q4_0, q8_0, q4_K, q6_K
  public var valuesPerBlock: Int { 32 }
  public var bytesPerBlock: Int { 18 }
  public func decode(_ blocks: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {}
  public func encode(_ values: UnsafeBufferPointer<Float>, rowLength: Int, importance: UnsafeBufferPointer<Float>?, into blocks: UnsafeMutableRawBufferPointer) throws(NonFinite) {}
  public var canEncode: Bool { true }
}
