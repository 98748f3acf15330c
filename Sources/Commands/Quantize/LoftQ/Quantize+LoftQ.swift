import Architectures
import Bytes
import Checkpoints
import Tensors
import Writing

extension Quantize {
  /// A run, and what decided about it.
  struct Prepared {
    var run: WriteRun
    let weights: WeightPlan
    let measured: MeasuredInputs
    /// The steps that quantize, in the order of the output.
    let quantized: [Step]
  }

  /// Quantizes, and writes the adapter beside the output when that is whole.
  func run(
    with rank: Int, _ source: String, output: String, announce: (Warning) -> Void
  ) throws(Failure) -> RunReport {
    let model = try StoredModel(CheckpointFiles(path: source, config: run.config))
    do throws(Failure) {
      var prepared = try self.prepared(model)
      let loftq = try LoftQ(self, rank: rank, prepared, of: model, beside: output)
      prepared.run.warnings += loftq.warnings
      if run.isDryRun {
        var report = try prepared.run.run(into: output, announce: announce)
        report.adapter = try loftq.expected()
        return report
      }
      // Before the model is read, which takes its time.
      let stage = try loftq.stage()
      prepared.run.otherByteCount = try loftq.byteCount()
      var report = try prepared.run.run(into: output, announce: announce)
      report.adapter = try loftq.write(to: stage, announce: announce)
      return report
    } catch { throw model.located(error) }
  }
}
