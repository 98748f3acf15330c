package import Bytes
package import Quantization
import Synchronization
package import Tensors

/// The factors of an adapter's modules, in file order: A and B of one after the other. Those of a module are made when
/// its A is read, and kept for its B, which follows.
package struct FactorTensors: TensorSource {
  package struct Module: Sendable {
    /// As PEFT names it.
    package var path: String
    package var rank: Int
    package var inputs: Int
    package var outputs: Int
    /// Bytes that are read from files to make the factors.
    package var storedByteCount: Int

    package init(path: String, rank: Int, inputs: Int, outputs: Int, storedByteCount: Int) {
      self.path = path
      self.rank = rank
      self.inputs = inputs
      self.outputs = outputs
      self.storedByteCount = storedByteCount
    }
  }

  /// A `[rank, inputs]` and B `[outputs, rank]` of a module, by its position.
  package typealias Make = @Sendable (_ module: Int) throws(Failure) -> (a: FloatMatrix, b: FloatMatrix)

  /// The prefix of every name in a PEFT adapter.
  package static let prefix = "base_model.model."

  package let tensors: [TensorInfo]
  private let modules: [Module]
  private let type: FloatType
  private let make: Make
  private let made = Made()

  /// The factors computed last.
  private final class Made: Sendable {
    struct State {
      var module = -1
      /// As they are stored.
      var a: [UInt8] = []
      var b: [UInt8] = []
    }

    let state = Mutex(State())
  }

  package init(_ modules: [Module], type: FloatType, make: @escaping Make) throws(Failure) {
    var tensors: [TensorInfo] = []
    for module in modules {
      let name = TensorName(Self.prefix + module.path)
      tensors.append(
        try TensorInfo(name: name + ".lora_A.weight", type: type.element, shape: [module.rank, module.inputs]))
      tensors.append(
        try TensorInfo(name: name + ".lora_B.weight", type: type.element, shape: [module.outputs, module.rank]))
    }
    self.tensors = tensors
    self.modules = modules
    self.type = type
    self.make = make
  }

  package func storedByteCount(of index: Int) -> Int { index % 2 == 0 ? modules[index / 2].storedByteCount : 0 }

  package func read(_ index: Int, at offset: Int, into destination: inout MutableRawSpan) throws(Failure) {
    try made.state.withLock { (state) throws(Failure) in
      if state.module != index / 2 {
        let (a, b) = try make(index / 2)
        state.a = try stored(a)
        state.b = try stored(b)
        state.module = index / 2
      }
      let bytes = index % 2 == 0 ? state.a : state.b
      guard offset >= 0, offset + destination.byteCount <= bytes.count else {
        throw Failure(.internal, "a factor is smaller than was planned")
      }
      destination.copy(from: bytes.span.rawBytes.extracting(offset..<offset + destination.byteCount))
    }
  }

  /// A matrix as the file has it.
  private func stored(_ matrix: FloatMatrix) throws(Failure) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: matrix.count * type.byteCount)
    var span = bytes.mutableSpan
    var room = span.mutableRawBytes
    do throws(Overflow) { try convert(matrix.bytes, from: .f32, to: type, into: &room) } catch {
      throw Failure(.internal, "a factor that was rounded is beyond the range of its dtype")
    }
    return bytes
  }
}
