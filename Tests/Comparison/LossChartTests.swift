import Comparison
import Testing

/// What `inspect --stats --against` draws under its table.
@Suite struct LossChartTests {
  @Test func worstFirstAndLayersInOrder() throws {
    let names = (0..<3).flatMap { ["model.layers.\($0).q.weight", "model.layers.\($0).k.weight"] }
    let losses = [0.008, 0.001, 0.004, 0.002, 0.001, 0.0047]
    let chart = try #require(LossChart(zip(names, losses).map { (name: $0.0, loss: $0.1) }))
    #expect(
      chart.text == """
        lost most                  rel.mse
          model.layers.0.q.weight    0.008  ████████████████████████
          model.layers.2.k.weight   0.0047  ██████████████
          model.layers.1.q.weight    0.004  ████████████
          model.layers.1.k.weight    0.002  ██████
          model.layers.0.k.weight    0.001  ███
        layers 0 to 2              ▁ 0.001  █ 0.008
          model.layers.*.q.weight  █▄▁
          model.layers.*.k.weight  ▁▂▅

        """)
  }

  /// Experts of one layer share its column, which shows the worst of them.
  @Test func experts() throws {
    let losses = [("l.0.experts.0.w", 0.1), ("l.0.experts.1.w", 0.9), ("l.1.experts.0.w", 0.1)]
    let chart = try #require(LossChart(losses.map { (name: $0.0, loss: $0.1) }))
    #expect(chart.text.contains("l.*.experts.*.w  █▁\n"))
  }

  @Test func nothingToShow() {
    #expect(LossChart([]) == nil)
    #expect(LossChart([(name: "a", loss: 0), (name: "b", loss: .infinity)]) == nil)
  }

  /// Many layers fit into a line, and a number that is no layer's breaks nothing.
  @Test func manyLayers() throws {
    let losses = (0..<1000).map { (name: "blk.\($0).w", loss: Double($0 + 1)) }
    let chart = try #require(LossChart(losses + [(name: "99999999999999999999.w", loss: 1), (name: "x", loss: 1)]))
    #expect(chart.text.split(separator: "\n").allSatisfy { $0.count <= 80 })
  }
}
