import Bytes
import Quantization

extension StoredModel {
  /// For comparisons, which need not know what a model is: one of MLX whose class or format is not known here is taken
  /// as it is stored.
  init(comparing files: CheckpointFiles) throws(Failure) {
    do throws(Failure) { try self.init(files, blocksAs: .f32) } catch {
      guard error.code == .unsupported, let stored = try? StoredModel(stored: files),
        stored.quantizationMethod == .other("MLX")
      else { throw error }
      self = stored
    }
  }
}
