import Bytes
import PyTorch
import Tensors
import TestSupport
import Testing

/// A checkpoint of DeepSpeed in a directory: a.weight is 0 to 14 in five rows, a.bias 15 to 19, b.weight 20 to 34 in
/// three rows.
protocol ZeROExample {
  var directory: TemporaryDirectory { get }
}

extension ZeROExample {
  static var shapes: [(String, [Int])] { [("a.weight", [5, 3]), ("a.bias", [5]), ("b.weight", [3, 5])] }
  var module: String { "mp_rank_00_model_states.pt" }

  func model(_ edit: (inout ZeROBuilder.Model) -> Void = { _ in }) -> ZeROBuilder.Model {
    var model = ZeROBuilder.Model()
    model.groups = [Self.shapes]
    edit(&model)
    return model
  }

  func floats(_ range: ClosedRange<Int>) -> [Float] { range.map { Float($0) } }

  func optimizer(_ rank: Int, prefix: String = "bf16_") -> String {
    "\(prefix)zero_pp_rank_\(rank)_mp_rank_00_optim_states.pt"
  }

  func partition(_ rank: Int) -> String { "zero_pp_rank_\(rank)_mp_rank_00_model_states.pt" }

  func open() throws -> ZeROCheckpoint { try ZeROCheckpoint(InputDirectory(path: directory.path)) }

  func check(_ checkpoint: ZeROCheckpoint, _ expected: [(String, ZeROBuilder.Tensor)]) throws {
    for (name, tensor) in expected {
      let index = try #require(checkpoint.index(of: TensorName(name)), "\(name)")
      let info = checkpoint.tensors[index]
      #expect(try checkpoint.bytes(index) == tensor.bytes, "\(name)")
      if let place = try checkpoint.place(of: index) {
        #expect(try place.file.bytes(in: place.offset..<place.offset + info.byteCount) == tensor.bytes, "\(name)")
      }
      #expect(checkpoint.fileNames.contains(checkpoint.location(of: index).file))
    }
    try checkpoint.checkUnchanged()
  }

  var example: [(String, ZeROBuilder.Tensor)] {
    zip(Self.shapes, [0...14, 15...19, 20...34]).map { ($0.0, .float32(floats($1), $0.1)) }
  }

  func refused(_ code: Failure.Code, _ message: String, file: String, tensor: String? = nil) throws {
    let failure = try #require(throws: Failure.self) { _ = try open() }
    #expect(failure.code == code && failure.message.contains(message), "\(failure)")
    #expect(failure.file == file && failure.tensor == tensor, "\(failure)")
  }
}
