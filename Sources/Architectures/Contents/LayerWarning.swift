import Bytes

/// Which layers say something of a stack's others.
enum LayerSurvey {
  /// Nothing is known of the class.
  case all
  /// The class may have layers of several kinds: what most have, or half of them if the others have nothing else.
  case most
  /// A tensor that any layer has is expected of all layers, unless the others have something else instead.
  case alike
}

/// The layers of a stack are held to each other.
///
/// - Parameter isHeld: of a name, whether all layers have it or none.
func layerWarning(_ names: [[UInt8]], _ survey: LayerSurvey, isHeld: ([UInt8]) -> Bool = { _ in true }) -> Warning? {
  // By stack and member, which layers have it.
  var stacks: [[UInt8]: [[UInt8]: Set<[UInt8]>]] = [:]
  var layers: [[UInt8]: [[UInt8]: Set<[UInt8]>]] = [:]
  var held: [[UInt8]: Set<[UInt8]>] = [:]
  for name in names {
    let parts = name.components
    guard let first = parts.firstIndex(where: \.isNumber), first > 0, first + 1 < parts.count else { continue }
    let dot = [UInt8(ascii: ".")]
    let stack = Array(parts[..<first].joined(separator: dot))
    let member = Array(parts[(first + 1)...].joined(separator: dot))
    stacks[stack, default: [:]][member, default: []].insert(Array(parts[first]))
    layers[stack, default: [:]][Array(parts[first]), default: []].insert(member)
    if isHeld(name) { held[stack, default: []].insert(member) }
  }
  var lacking: [String] = []
  for (stack, members) in stacks.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
    let all = layers[stack] ?? [:]
    for (member, there) in members.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) })
    where there.count < all.count && held[stack]?.contains(member) == true {
      var without = all.filter { !there.contains($0.key) }
      // Another kind of layer has something else in its place.
      let isOwn = { (kind: Set<[UInt8]>) in !there.contains { all[$0]?.isSuperset(of: kind) == true } }
      switch survey {
      case .all: break
      case .most where 2 * there.count > all.count: break
      case .most where 2 * there.count < all.count: continue
      default: without = without.filter { !isOwn($0.value) }
      }
      // The first layer by number that has it not.
      let first = without.keys.min {
        ($0.count, String(decoding: $0, as: UTF8.self)) < ($1.count, String(decoding: $1, as: UTF8.self))
      }
      guard let first else { continue }
      lacking.append(
        "'\(String(decoding: stack, as: UTF8.self)).\(String(decoding: first, as: UTF8.self))' has no "
          + "'\(String(decoding: member, as: UTF8.self))' (\(there.count) of \(all.count) have)")
    }
  }
  return lacking.isEmpty ? nil : "the layers do not have the same tensors: \(list: lacking)"
}
