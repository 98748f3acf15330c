package import Bytes
import PackedWeights
package import Quantization
package import Tensors

/// A source with some of its tensors in another floating-point type, rounded to nearest even.
package struct ConvertedSource: WrappingSource {
  package let base: any TensorSource
  package let tensors: [TensorInfo]
  private let conversions: [Int: (from: ElementType, to: FloatType)]

  /// - Parameter targets: the new type of each tensor that changes, by position.
  package init(_ base: any TensorSource, _ targets: [Int: FloatType]) throws(Failure) {
    self.base = base
    var tensors = base.tensors
    var conversions: [Int: (from: ElementType, to: FloatType)] = [:]
    for (index, target) in targets {
      let info = tensors[index]
      guard info.type.isFloat else {
        throw Failure(
          .unsupported, "is \(info.type.name), which cannot be converted to \(target.torchName)",
          tensor: info.name.string)
      }
      tensors[index] = try TensorInfo(name: info.name, type: target.elementType, shape: info.shape)
      conversions[index] = (info.type, target)
    }
    self.tensors = tensors
    self.conversions = conversions
  }

  package func changes(_ index: Int) -> Bool { conversions[index] != nil }

  /// - Throws: `malformed` for a finite value that the new type can only hold as an infinity.
  package func read(
    _ index: Int, at offset: Int, into destination: inout MutableRawSpan
  ) throws(Failure) {
    guard let (from, to) = conversions[index] else {
      return try base.read(index, at: offset, into: &destination)
    }
    guard offset % to.byteCount == 0, destination.byteCount % to.byteCount == 0 else {
      throw Failure(.internal, "a piece cuts an element in two", tensor: tensors[index].name.string)
    }
    let start = offset / to.byteCount
    let count = destination.byteCount / to.byteCount
    let width = from.bitWidth / 8
    let values = try ScratchBuffer(base, index, at: start * width, count: count * width)
    do throws(Overflow) {
      if let from = FloatType(from) {
        try convert(values.bytes, from: from, to: to, into: &destination)
      } else {
        try narrow(values.bytes, to: to, into: &destination)
      }
    } catch {
      throw Failure(
        .malformed, "element \(start + error.index) is \(error.value), beyond the range of \(to.torchName)",
        tensor: tensors[index].name.string)
    }
  }
}
