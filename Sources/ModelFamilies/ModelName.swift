/// The parts of a repository's or a directory's name: `Qwen2.5-7B-Instruct` is Qwen2.5, of 7B parameters, tuned for
/// Instruct. The guesses are those of gguf-py 0.19.
struct ModelName: Equatable {
  var organization: String?
  var fullName: String?
  var basename: String?
  var finetune: String?
  var version: String?
  var sizeLabel: String?

  private enum Kind { case basename, sizeLabel, finetune, version, type }

  /// - Parameter total: values of the model, which a size in the name must be near to count as one.
  init(_ identifier: String, total: Int) {
    if identifier.utf8.contains(UInt8(ascii: " ")) {
      fullName = identifier
      return
    }
    var name = identifier[...]
    if let slash = identifier.firstIndex(of: "/") {
      let owner = identifier[..<slash]
      name = identifier[identifier.index(after: slash)...]
      organization = owner.hasPrefix(".") ? nil : String(owner)
    }
    fullName = String(name)
    var parts = name.split(separator: "-").map { String($0) }
    var kinds: [Set<Kind>] = []
    for index in parts.indices {
      let (kind, text) = Self.kind(of: parts[index], isFirst: index == 0, total: total)
      parts[index] = text
      kinds.append(kind.map { [$0] } ?? [])
    }
    Self.dropWordSizes(parts, &kinds)
    Self.markBasename(parts, &kinds)

    func joined(_ wanted: (Set<Kind>) -> Bool, unique: Bool = false) -> String? {
      var chosen: [String] = []
      for (part, kind) in zip(parts, kinds) where wanted(kind) && !(unique && chosen.contains(part)) {
        chosen.append(part)
      }
      return chosen.isEmpty ? nil : chosen.joined(separator: "-")
    }
    sizeLabel = joined({ $0.contains(.sizeLabel) }, unique: true)
    finetune = joined { $0.contains(.finetune) }
    version = joined { $0.contains(.version) && !$0.contains(.basename) }
    // A name without any of these may be anything.
    if sizeLabel != nil || finetune != nil || version != nil { basename = joined { $0.contains(.basename) } }
  }

  private static func kind(of part: String, isFirst: Bool, total: Int) -> (Kind?, String) {
    let lower = Array(part.lowercased().utf8)
    if NamePart.isVersion(lower) { return (.version, part) }
    if NamePart.isType(lower) { return (.type, part.uppercased()) }
    if isFirst { return (nil, part) }
    if NamePart.isSize(lower) { return size(part, total: total) }
    if ["chat", "instruct", "vision", "lora"].contains(part.lowercased()) { return (.finetune, part) }
    return (nil, part)
  }

  private static func size(_ part: String, total: Int) -> (Kind, String) {
    var text = Array(part.utf8).map { $0 == UInt8(ascii: "_") ? UInt8(ascii: ".") : $0 }
    // `7b1` is 7.1b.
    if let last = text.last, NamePart.isDigit(last), text.count > 2 {
      text = text.dropLast(2) + [UInt8(ascii: "."), last, text[text.count - 2]]
    }
    if text.count > 1, let last = text.last, NamePart.isDigit(text[text.count - 2]), "kmbt".utf8.contains(last) {
      text[text.count - 1] = last - 0x20
    }
    let digits = text.dropLast()
    let isPlain = digits.allSatisfy { NamePart.isDigit($0) || $0 == UInt8(ascii: ".") }
    let number = isPlain ? Double(String(decoding: digits, as: UTF8.self)) : nil
    if total != 0, let last = text.last, let number {
      let power = Array(" KMBT".utf8).firstIndex(of: last) ?? -1
      let stated = number * [0.001, 1, 1e3, 1e6, 1e9, 1e12][power + 1]
      // Far from the model's size: likely a context length.
      if abs(stated - Double(total)) > (Double(7) * Double(total) / 8).rounded(.down) {
        text[text.count - 1] = UInt8(ascii: "A")...UInt8(ascii: "Z") ~= last ? last + 0x20 : last
        return (.finetune, String(decoding: text, as: UTF8.self))
      }
    }
    return (.sizeLabel, String(decoding: text, as: UTF8.self))
  }

  /// `small` is no size where a number is.
  private static func dropWordSizes(_ parts: [String], _ kinds: inout [Set<Kind>]) {
    let sizes = parts.indices.filter { kinds[$0].contains(.sizeLabel) }
    guard sizes.contains(where: { parts[$0].utf8.contains(where: NamePart.isDigit) }) else { return }
    for index in sizes where parts[index].allSatisfy(\.isLetter) { kinds[index].remove(.sizeLabel) }
  }

  private static func markBasename(_ parts: [String], _ kinds: inout [Set<Kind>]) {
    var isAtStart = true
    for index in parts.indices {
      let isWord = kinds[index].isEmpty && parts[index].first?.isLetter ?? false
      if isAtStart, isWord || kinds[index].contains(.version) {
        kinds[index].insert(.basename)
      } else {
        isAtStart = false
        if kinds[index].isEmpty { kinds[index].insert(.finetune) }
      }
    }
    for index in parts.indices.reversed() {
      guard kinds[index].contains(.basename), kinds[index].count > 1 else { break }
      kinds[index].remove(.basename)
    }
  }

  /// `tiny-llama-v2` is `Tiny Llama v2`: words in lower case get capitals, except versions and numbers.
  static func title(_ name: String) -> String {
    let words = name.split { $0 == "-" || $0.isWhitespace }
    return words.map { word in
      let letters = word.filter(\.isCased)
      let bytes = Array(word.utf8)
      let isNumber = bytes.first.map(NamePart.isDigit) ?? false
      let isVersion = bytes.first == UInt8(ascii: "v") && NamePart.isVersion(bytes)
      guard !letters.isEmpty, letters.allSatisfy(\.isLowercase), !isNumber, !isVersion else {
        return String(word)
      }
      var isInWord = false
      return String(
        word.flatMap { character -> String in
          defer { isInWord = character.isCased }
          return isInWord ? character.lowercased() : character.uppercased()
        })
    }.joined(separator: " ")
  }
}

/// The shapes of a name's parts, in lower case.
enum NamePart {
  static func isDigit(_ byte: UInt8) -> Bool { UInt8(ascii: "0")...UInt8(ascii: "9") ~= byte }

  /// `v1`, `iter2`, `3.1`
  static func isVersion(_ part: [UInt8]) -> Bool {
    var rest = part[...]
    if !rest.drop("v") { _ = rest.drop("iter") }
    guard rest.dropDigits() else { return false }
    while rest.drop(".") {
      guard rest.dropDigits() else { return false }
    }
    return rest.isEmpty
  }

  /// `q4_k_m`, `iq2_x`, `fp16`, `bf16`
  static func isType(_ part: [UInt8]) -> Bool {
    var rest = part[...]
    _ = rest.drop("i")
    if rest.drop("q"), let digit = rest.popFirst(), isDigit(digit) {
      while rest.drop("_") {
        guard let next = rest.popFirst(), isDigit(next) || next == UInt8(ascii: "_") || isLetter(next) else {
          return false
        }
      }
      return rest.isEmpty
    }
    rest = part[...]
    _ = rest.drop("b")
    guard rest.drop("f") else { return false }
    _ = rest.drop("p")
    return rest.elementsEqual("16".utf8) || rest.elementsEqual("32".utf8)
  }

  /// `7b`, `8x7b`, `a3b`, `1.5b`, `7b1`, `large`
  static func isSize(_ part: [UInt8]) -> Bool {
    let words = ["small", "mini", "medium", "large", "xl", "xxl"]
    if words.contains(where: { part.elementsEqual($0.utf8) }) { return true }
    var rest = part[...]
    if !rest.drop("a") {
      var copies = rest
      if copies.dropDigits(), copies.drop("x") { rest = copies }
    }
    guard rest.dropDigits() else { return false }
    if rest.first == UInt8(ascii: ".") || rest.first == UInt8(ascii: "_") {
      rest.removeFirst()
      guard rest.dropDigits() else { return false }
    }
    guard let unit = rest.popFirst(), "kmbt".utf8.contains(unit) else { return false }
    if let last = rest.first, isDigit(last) { rest.removeFirst() }
    return rest.isEmpty
  }

  private static func isLetter(_ byte: UInt8) -> Bool { UInt8(ascii: "a")...UInt8(ascii: "z") ~= byte }
}

extension ArraySlice<UInt8> {
  fileprivate mutating func drop(_ prefix: String) -> Bool {
    guard starts(with: prefix.utf8) else { return false }
    removeFirst(prefix.utf8.count)
    return true
  }

  /// - Returns: whether there was one.
  fileprivate mutating func dropDigits() -> Bool {
    let count = prefix(while: NamePart.isDigit).count
    removeFirst(count)
    return count > 0
  }
}
