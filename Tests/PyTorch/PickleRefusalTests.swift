import Bytes
import PyTorch
import TestSupport
import Testing

/// What a pickle must not be. What is nearest to it and allowed has a row in `PickleTests`.
@Suite struct PickleRefusalTests {
  private static let rows: [(name: String, bytes: [UInt8], message: String)] = [
    ("an instruction that is not read", [0x69], "pickle instruction INST 0x69 is not one that PyTorch writes"),
    ("one that there is not", [0xFF], "pickle instruction 0xff is not one"),
    ("two protocols", [0x80, 2, 0x4E], "the protocol is given twice"),
    ("a frame beyond the end", [0x95, 9, 0, 0, 0, 0, 0, 0, 0, 0x4E], "a frame of 9 bytes, only 2 remain"),
    ("nothing left", [], "ends with 0 values on its stack"), ("two values", [0x4E, 0x4E], "ends with 2 values"),
    ("a mark left", [0x28, 0x4E], "ends with 1 value on its stack"),
    ("REDUCE of nothing", [0x52], "the pickle's stack is empty"), ("TUPLE2 of one", [0x4E, 0x86], "stack is empty"),
    ("below a mark", [0x4E, 0x28, 0x85], "stack is empty"), ("TUPLE without a mark", [0x4E, 0x74], "there is no mark"),
    ("BINPUT of nothing", [0x71, 0], "stack is empty"),
    ("BINGET of nothing", [0x68, 7], "entry 7 of the pickle's memo"),
    ("LONG_BINGET of nothing", [0x6A, 255, 255, 255, 255], "entry 4294967295"),
    ("BINPUT twice", [0x4E, 0x71, 3, 0x71, 3], "entry 3 of the pickle's memo is set twice"),
    ("a text beyond the end", [0x58, 255, 255, 255, 255, 0x61], "4294967295 bytes are needed, 2 remain"),
    ("a text of 2⁶⁴-1 bytes", [0x8D] + [UInt8](repeating: 255, count: 8), "a length of 18446744073709551615 bytes"),
    ("a text of -1 bytes", [0x54, 255, 255, 255, 255], "a text of -1 bytes"),
    ("a text that is not UTF-8", [0x58, 1, 0, 0, 0, 0xFF], "is not UTF-8"),
    ("a surrogate", [0x58, 3, 0, 0, 0, 0xED, 0xA0, 0x80], "is not UTF-8"),
    (
      "an integer of 256 bytes", [0x8B, 0, 1, 0, 0] + [UInt8](repeating: 1, count: 256),
      "an integer of 256 bytes, read are 255"
    ),
    ("an integer beyond the end", [0x8B, 0, 0, 0, 0x40], "1073741824 bytes are needed"),
    ("a name without an end", Array("cposix".utf8), "ends inside a function's name"),
    ("a long name", [0x63] + [UInt8](repeating: 0x61, count: 1100) + [10, 10], "more than the 1024 bytes"),
    ("a name of numbers", [0x4B, 1, 0x4B, 2, 0x93], "the name of a function is not a text"),
    ("an odd SETITEMS", [0x7D, 0x28, 0x4E, 0x75], "a key without a value"),
    ("SETITEM on a tuple", [0x29, 0x4E, 0x4E, 0x73], "an entry is set in a tuple"),
    ("SETITEM on a list", [0x5D, 0x4E, 0x4E, 0x73], "an entry is set in a list"),
    ("APPEND to a dictionary", [0x7D, 0x4E, 0x61], "something is appended to a dictionary"),
    ("APPEND to an integer", [0x4B, 1, 0x4E, 0x61], "something is appended to a integer"),
    ("ADDITEMS on a list", [0x5D, 0x28, 0x90], "ADDITEMS on no set"),
    ("BUILD on a class", Pickle.global("a", "C") + [0x7D, 0x62], "BUILD on a name"),
    ("BUILD on a list", [0x5D, 0x7D, 0x62], "BUILD on a list"),
    ("BUILD twice", Pickle.call("a", "C", []) + [0x7D, 0x62, 0x7D, 0x62], "is given its state twice"),
    ("REDUCE of a text", Pickle.text("f") + [0x29, 0x52], "REDUCE on a text"),
    ("REDUCE with a list", Pickle.global("a", "f") + [0x5D, 0x52], "REDUCE with a list, expected a tuple"),
    ("NEWOBJ_EX without keywords", Pickle.global("a", "C") + [0x29, 0x4E, 0x92], "NEWOBJ_EX without a dictionary"),
    ("a key twice", Pickle.dictionary([("w", [0x4E]), ("v", [0x4E]), ("w", [0x88])]), "key 'w' occurs twice"),
    (
      "a key twice in an object", Pickle.call("a", "D", []) + Pickle.entries([("w", [0x4E]), ("w", [0x88])]),
      "key 'w' occurs twice"
    ),
    ("a number twice", [0x7D, 0x28, 0x4B, 1, 0x4E, 0x4B, 1, 0x4E, 0x75], "key '1' occurs twice"),
    (
      "a key by reference", [0x7D, 0x28] + Pickle.text("w") + [0x71, 0, 0x4E, 0x68, 0, 0x4E, 0x75],
      "key 'w' occurs twice"
    ),
    ("more after the end", [0x4E, 0x2E, 0x4E], "2 bytes follow the end of the pickle"),
  ]

  private func refused(_ pickle: [UInt8], limits: PickleLimits = PickleLimits()) throws -> Failure {
    try #require(throws: Failure.self) { _ = try graph(pickle, limits: limits) }
  }

  @Test(arguments: rows.indices) func isRefused(_ row: Int) throws {
    let (name, bytes, message) = Self.rows[row]
    let failure = try refused(Pickle.whole(bytes))
    #expect(failure.description.contains(message), "\(name): \(failure)")
    #expect([.malformed, .unsupported].contains(failure.code) && failure.file == "m.bin")
    // The pickle begins at 64, its instructions at 66.
    let offset = try #require(failure.offset, "\(name)")
    #expect(offset >= 64 && offset <= 66 + bytes.count + 1, "\(name): \(failure)")
  }

  @Test func theOffsetIsThatOfTheInstruction() throws {
    #expect(try refused(Pickle.whole([0x4E, 0x4E, 0x69])).offset == 64 + 4)
  }

  @Test(arguments: [0, 1, 6, 255] as [UInt8]) func otherProtocols(_ version: UInt8) throws {
    let failure = try refused(Pickle.whole([0x4E], version: version))
    #expect(failure.code == .unsupported && failure.message == "is a pickle of protocol \(version), read are 2 to 5")
  }

  @Test func everyCutIsRefused() throws {
    for cut in 0..<TorchBuilder.example.count {
      #expect(try refused(Array(TorchBuilder.example[..<cut])).code.rawValue != 70, "\(cut)")
    }
  }

  @Test func sizes() throws {
    let pickle = Pickle.whole(Pickle.text("0123456789"))
    #expect(try graph(pickle, limits: PickleLimits(byteCount: pickle.count)).count > 0)
    let failure = try refused(pickle, limits: PickleLimits(byteCount: pickle.count - 1))
    #expect(failure.message == "the pickle has 18 bytes, allowed are 17")
  }

  /// Values, elements, entries, what is on the stack, marks: whatever there is many of.
  @Test(arguments: [
    [0x5D] as [UInt8], [0x4E], [0x28], [0x5D, 0x94], [0x32], [0x85], [0x7D],
  ]) func items(_ piece: [UInt8]) throws {
    let limits = PickleLimits(itemCount: 1000)
    let few: [UInt8] = [0x4E] + [[UInt8]](repeating: piece, count: 300).flatMap(\.self)
    let many: [UInt8] = [0x4E] + [[UInt8]](repeating: piece, count: 1100).flatMap(\.self)
    #expect(try !refused(Pickle.whole(few + [0x69]), limits: limits).message.contains("items"))
    #expect(
      try refused(Pickle.whole(many), limits: limits).message
        == "the pickle consists of more than the 1000 items allowed")
  }
}
