public import GGUF

extension GGUFMetadata {
  /// The version of the layout of quantized blocks, in `general.quantization_version`.
  public static let quantizationVersion: UInt32 = 2

  package static let importanceFileKey = "quantize.imatrix.file"
  /// Nibble's own, which llama.cpp has no name for.
  package static let feedbackFileKey = "quantize.feedback.file"

  /// The metadata of what a model becomes: as they were, then, in this order, the version of the quantization, the
  /// scheme, and what is known of measured inputs. The numbers of a split are left out. A key that was there
  /// moves to the end.
  public func quantized(
    to scheme: GGUFScheme, importance: ImportanceMatrix? = nil, feedback: String? = nil
  ) -> GGUFMetadata {
    var result = self
    func set(_ key: String, _ value: GGUFValue) {
      result[key] = nil
      result[key] = value
    }
    set("general.quantization_version", .uint32(Self.quantizationVersion))
    set("general.file_type", .uint32(scheme.fileType))
    for key in ["split.no", "split.count", "split.tensors.count"] { result[key] = nil }
    if let importance {
      set(Self.importanceFileKey, .string(Self.cut(Array(importance.fileName.utf8))))
      if let dataset = importance.datasets.first { set("quantize.imatrix.dataset", .string(Self.cut(dataset))) }
      set("quantize.imatrix.entries_count", .uint32(UInt32(clamping: importance.entryCount)))
      if importance.chunkCount > 0 {
        set("quantize.imatrix.chunks_count", .uint32(UInt32(clamping: importance.chunkCount)))
      }
    }
    if let feedback { set(Self.feedbackFileKey, .string(Self.cut(Array(feedback.utf8)))) }
    return result
  }

  /// The first 127 bytes of a text, as many as `llama-quantize` keeps; no character is cut in two here.
  private static func cut(_ bytes: [UInt8]) -> [UInt8] {
    guard bytes.count > 127 else { return bytes }
    var end = 127
    while end > 0, bytes[end] & 0xC0 == 0x80 { end -= 1 }
    return Array(bytes[..<end])
  }
}
