import Bytes
import Quantization

extension ModelSource {
  /// For comparisons, which need not know what a model is: one of MLX whose class or format is not known here is taken
  /// as it is stored.
  init(comparing path: String) throws(Failure) {
    do throws(Failure) { try self.init(path: path, blocksAs: .f32) } catch {
      guard error.code == .unsupported, let stored = try? ModelSource(stored: path),
        stored.quantizationMethod == .other("MLX")
      else { throw error }
      self = stored
    }
  }
}
