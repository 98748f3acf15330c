import Bytes
import PyTorch
import Tensors
import TestSupport
import Testing

@Suite struct ZeROTests: ZeROExample {
  private typealias Tensor = ZeROBuilder.Tensor

  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func writeReplicated(
    stage: Int = 2, _ model: ZeROBuilder.Model? = nil, ranks: [ClosedRange<Int>] = [0...17, 18...34],
    counts: [Int] = [2], paddings: [[Int]]? = nil
  ) throws {
    try directory.write(module, (model ?? self.model()).bytes)
    for (rank, range) in ranks.enumerated() {
      try directory.write(
        optimizer(rank),
        ZeROBuilder.optimizer(stage: stage, counts: counts, [.float32(floats(range))], paddings: paddings))
    }
  }

  @Test(arguments: [1, 2]) func vectorOfAllRanks(stage: Int) throws {
    try writeReplicated(stage: stage)
    let checkpoint = try open()
    #expect(checkpoint.tensors.map(\.name) == ["a.weight", "a.bias", "b.weight"])
    #expect(checkpoint.tensors.map(\.shape) == [[5, 3], [5], [3, 5]])
    #expect(checkpoint.tensors.allSatisfy { $0.type == .f32 })
    #expect(checkpoint.fileNames == [module, optimizer(0), optimizer(1)])
    #expect(try checkpoint.files.map(\.size) == checkpoint.fileNames.map { try directory.read($0).count })
    #expect(checkpoint.identities.count == 3 && checkpoint.warnings.isEmpty && checkpoint.tied.isEmpty)
    #expect(checkpoint.path == directory.path && checkpoint.index(of: "a") == nil)
    try check(checkpoint, example)
    // The bias lies in both files; its last two are the second's first.
    #expect(try checkpoint.place(of: 1) == nil && checkpoint.place(of: 2)?.file.name == optimizer(1))
    try directory.write(optimizer(0), [1])
    #expect(try #require(throws: Failure.self) { try checkpoint.checkUnchanged() }.code == .io)
  }

  @Test func groupsAndPaddings() throws {
    let groups: [[(String, [Int])]] = [[("x", [3]), ("y", [5])], [("z", [])]]
    try directory.write(module, model { $0.groups = groups }.bytes)
    // x and one that fills it up, then y; of what fills up the vectors to twelve and to four, all and one are left out.
    let ranks: [[Tensor]] = [
      [.float32([1, 2, 3, 90, 4, 5]), .float32([9, 91])], [.float32([6, 7, 8]), .float32([92])],
    ]
    for (rank, vectors) in ranks.enumerated() {
      let file = ZeROBuilder.optimizer(stage: 2, counts: [2, 2], vectors, paddings: [[1, 0], [0]])
      try directory.write(optimizer(rank, prefix: ""), file)
    }
    let checkpoint = try open()
    #expect(checkpoint.tensors.map(\.shape) == [[3], [5], []])
    try check(
      checkpoint, [("x", .float32([1, 2, 3])), ("y", .float32([4, 5, 6, 7, 8])), ("z", .float32([9]))])
  }

  @Test func whatIsNotTrained() throws {
    let frozen = Tensor.bfloat16([1, 2, 3, 4, 5, 6], [2, 3])
    let buffer = Tensor.bfloat16([0.5])
    let trained = Tensor.bfloat16(floats(15...19))
    // Of stage 1 they are in the module alone, under both names.
    try writeReplicated(
      stage: 1,
      model {
        $0.module = [("a.bias", trained), ("f", frozen), ("g", frozen), ("h", .empty), ("buffer", buffer)]
        $0.buffers = ["buffer"]
        $0.shared = [("g", "f"), ("h", "a.weight"), ("lost", "gone")]
      })
    let first = try open()
    #expect(first.tensors.map(\.name) == ["a.weight", "a.bias", "b.weight", "f", "buffer", "g", "h"])
    #expect(first.tied == [[0, 6], [3, 5]] && first.tensors[6].shape == [5, 3])
    #expect(first.warnings == ["\(module): left out 'lost', which are parameters that were not saved"])
    let whole = Tensor.float32(floats(0...14), [5, 3])
    try check(first, example + [("f", frozen), ("g", frozen), ("h", whole), ("buffer", buffer)])

    try writeReplicated(
      model {
        $0.frozenShapes = [("f", [2, 3])]
        $0.fragments = [("f", frozen)]
      })
    let second = try open()
    #expect(second.tensors.map(\.name) == ["a.weight", "a.bias", "b.weight", "f"])
    try check(second, example + [("f", frozen)])

    try writeReplicated(
      model {
        $0.frozenShapes = [("f", [3, 2])]
        $0.fragments = [("f", frozen)]
      })
    try refused(.malformed, "has shape [2, 3], expected [3, 2]", file: module, tensor: "f")
    try writeReplicated(model { $0.frozenShapes = [("f", [3, 2])] })
    try refused(.malformed, "is not in 'frozen_param_fragments'", file: module, tensor: "f")
  }

  /// DeepSpeed before 0.8, and where nothing is divided, says nothing of second names.
  @Test func namesOfOneStorage() throws {
    let frozen = Tensor.bfloat16([1, 2])
    try writeReplicated(
      model {
        $0.module = [("a.bias", .bfloat16(floats(15...19))), ("f", frozen), ("e", .bfloat16([])), ("same", frozen)]
        $0.repeated = [("b.bias", of: "a.bias"), ("g", of: "f"), ("d", of: "e")]
      })
    let checkpoint = try open()
    let names: [TensorName] = ["a.weight", "a.bias", "b.weight", "f", "e", "same", "b.bias", "g", "d"]
    #expect(checkpoint.tensors.map(\.name) == names && checkpoint.tied == [[1, 6], [3, 7]])
    // As it is trained, not as it is in the module.
    try check(checkpoint, example + [("b.bias", .float32(floats(15...19))), ("g", frozen), ("same", frozen)])
  }

  @Test func lengthsOfVectors() throws {
    // Up to a multiple of four; the last rank has what the parameters leave.
    try writeReplicated(ranks: [0...17, 18...35])
    try check(open(), example)
    try writeReplicated(ranks: [0...17, 18...33])
    try refused(
      .malformed, "needs the elements 20 to 35 of group 0, of which the ranks have 34", file: module,
      tensor: "b.weight")
    try writeReplicated(ranks: [0...18, 19...37])
    try refused(
      .malformed, "its parameters take 35 of the 38 elements that the ranks have of group 0, allowed is a rest below 4",
      file: module)
    try writeReplicated(ranks: [0...16, 17...34])
    try refused(
      .malformed, "group 0 has 18 elements of rank 1, those before it 17 each", file: optimizer(1))
    try writeReplicated(paddings: [[0, 0]])
    try refused(.malformed, "of groups of [2] parameters, the groups have [3]", file: optimizer(0))
    try writeReplicated(model { $0.groups?.append([("c", [1])]) })
    try refused(.malformed, "has 1 group of parameters, '\(module)' has 2", file: optimizer(0))
    try writeReplicated(model { $0.groups = [[("a", [Int.max, 2])]] })
    try refused(.malformed, "overflows", file: module, tensor: "a")
  }

  @Test func ranksThatAreMissing() throws {
    try writeReplicated(counts: [3])
    try refused(.missing, "the file is missing; the run had 3 ranks", file: optimizer(2))
    try writeReplicated(counts: [1])
    try refused(.malformed, "is of rank 1, the run had 1 rank", file: optimizer(1))
    try writeReplicated(counts: [2, 1])
    try refused(.unsupported, "divides its groups among [2, 1] ranks", file: optimizer(0))
    try writeReplicated()
    try directory.write(optimizer(1), ZeROBuilder.optimizer(stage: 1, counts: [2], [.float32(floats(18...34))]))
    try refused(.malformed, "is of stage 1 and 2 ranks, other files are of stage 2 and 2", file: optimizer(1))
    try directory.write(optimizer(1, prefix: ""), [])
    try refused(.malformed, "is of rank 1, as '\(optimizer(1))' is", file: optimizer(1, prefix: ""))
    try directory.remove(optimizer(1, prefix: ""))
    try directory.remove(module)
    try refused(.missing, "the file is missing; it says what the parameters are", file: module)
  }

  @Test func keysOfStages() throws {
    try writeReplicated()
    try directory.write(
      optimizer(0),
      ZeROBuilder.optimizer(stage: 2, counts: [2], [.float32(floats(0...17))], key: "fp32_flat_groups"))
    try refused(
      .malformed, "has no list 'single_partition_of_fp32_groups', which stage 2 of ZeRO has", file: optimizer(0))
    try directory.write(optimizer(0), ZeROBuilder.optimizer(stage: 4, counts: [2], []))
    try refused(.unsupported, "is of stage 4 of ZeRO", file: optimizer(0))
  }

  @Test func nothingDivided() throws {
    let weight = Tensor.bfloat16([1, 2], [2, 1])
    try directory.write(
      module,
      model {
        $0.groups = nil
        $0.module = [("w", weight)]
      }.bytes)
    try check(open(), [("w", weight)])
    try directory.write(module, model().bytes)
    try refused(.missing, "there is no '…_optim_states.pt' beside it", file: module)
  }
}
