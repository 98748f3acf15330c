import Bytes
import PyTorch
import Tensors
import TestSupport
import Testing

@Suite struct ZeROPartitionTests: ZeROExample {
  private typealias Tensor = ZeROBuilder.Tensor

  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  // MARK: - Stage 3

  /// What each of two ranks has of the three parameters, each part by itself; 99 fills up the second's.
  private static let shares: [[[Float]]] = [
    [[0, 1, 2, 3, 4, 5, 6, 7], [15, 16, 17], [20, 21, 22, 23, 24, 25, 26, 27]],
    [[8, 9, 10, 11, 12, 13, 14, 99], [18, 19, 99], [28, 29, 30, 31, 32, 33, 34, 99]],
  ]

  /// - Parameter cut: elements in the first of a rank's vectors.
  private func write(
    cut: Int = 19, folder: String = "", _ edit: (Int, inout ZeROBuilder.Model) -> Void = { _, _ in }
  ) throws {
    for (rank, shares) in Self.shares.enumerated() {
      let model = model {
        $0.module = Self.shapes.map { ($0.0, .empty) }
        edit(rank, &$0)
      }
      try directory.write(folder + partition(rank), model.bytes)
      let flat = shares.flatMap(\.self)
      let vectors = [flat[..<cut], flat[cut...]].filter { !$0.isEmpty }.map { Tensor.float32(Array($0)) }
      try directory.write(folder + optimizer(rank), ZeROBuilder.optimizer(stage: 3, counts: [2], vectors))
    }
  }

  @Test(arguments: [19, 5, 8, 18]) func everyParameterOfAllRanks(cut: Int) throws {
    try write(cut: cut)
    let checkpoint = try open()
    #expect(checkpoint.tensors.map(\.name) == ["a.weight", "a.bias", "b.weight"])
    #expect(checkpoint.fileNames == [partition(0), partition(1), optimizer(0), optimizer(1)])
    try check(checkpoint, example)
    #expect(try checkpoint.bytes(0, 20..<48) == Tensor.float32(floats(5...11)).bytes)
    #expect(try checkpoint.place(of: 0) == nil)
  }

  @Test func whatIsNotTrained() throws {
    let fragments: [Tensor] = [.bfloat16([1, 2, 3]), .bfloat16([4, 5, 99])]
    let buffer = Tensor.float32([6, 7], [2, 1])
    try write { rank, model in
      model.module += [("f", .empty), ("g", .empty), ("buffer", buffer), ("none", .float32([]))]
      model.buffers = ["buffer", "none"]
      model.frozenShapes = [("f", [5])]
      model.fragments = [("f", fragments[rank])]
      // As DeepSpeed has it: the first rank's file alone says so.
      model.shared = rank == 0 ? [("g", "f")] : []
    }
    let checkpoint = try open()
    #expect(checkpoint.tensors.map(\.name) == ["a.weight", "a.bias", "b.weight", "f", "buffer", "none", "g"])
    #expect(checkpoint.tied == [[3, 6]] && checkpoint.tensors[6].type == .bf16)
    let frozen = Tensor.bfloat16([1, 2, 3, 4, 5])
    try check(checkpoint, example + [("f", frozen), ("g", frozen), ("buffer", buffer), ("none", .float32([]))])

    try write { rank, model in
      model.frozenShapes = [("f", [5])]
      model.fragments = rank == 0 ? [("f", fragments[0])] : [("f", .bfloat16([4, 5]))]
    }
    try refused(
      .malformed, "has 2 elements, expected of shape [5] among 2 ranks are 3", file: partition(1), tensor: "f")
    try write { rank, model in
      model.frozenShapes = [("f", [5])]
      model.fragments = rank == 0 ? [("f", fragments[0])] : []
    }
    try refused(.malformed, "is not in 'frozen_param_fragments'", file: partition(1), tensor: "f")
    try write { _, model in model.module += [("f", .empty)] }
    try refused(
      .malformed, "is divided among the ranks, and nothing says what shape it has", file: partition(0), tensor: "f")
  }

  @Test func lengthsOfVectors() throws {
    try write()
    let flat = Self.shares[1].flatMap(\.self)
    for count in [18, 20] {
      let vector = Tensor.float32(Array((flat + [99]).prefix(count)))
      try directory.write(optimizer(1), ZeROBuilder.optimizer(stage: 3, counts: [2], [vector]))
      try refused(
        .malformed, "has \(count) elements of the parameters, by '\(partition(0))' a rank has 19", file: optimizer(1))
    }
    try directory.write(
      optimizer(1), ZeROBuilder.optimizer(stage: 3, counts: [2], [.bfloat16(flat)]))
    try refused(
      .malformed, "is F32, a part of it is BF16", file: directory.path, tensor: "a.weight")
    try directory.write(
      optimizer(1), ZeROBuilder.optimizer(stage: 3, counts: [2], [.float32(flat, [1, 19])]))
    try refused(.malformed, "expected a vector, shape is [1, 19]", file: optimizer(1))
    try directory.write(
      optimizer(1),
      ZeROBuilder.optimizer(stage: 3, counts: [2], [.float32(flat)], key: "single_partition_of_fp32_groups"))
    try refused(.malformed, "has no list 'fp32_flat_groups', which stage 3 of ZeRO has", file: optimizer(1))
  }

  @Test func ranksThatAreMissing() throws {
    try write()
    try directory.remove(partition(1))
    try refused(.missing, "the file is missing; the run had 2 ranks", file: partition(1))
    try write()
    try directory.remove(optimizer(0))
    try refused(.missing, "the file is missing; the run had 2 ranks", file: optimizer(0))
    try directory.remove(optimizer(1))
    try refused(.missing, "holds no '…_optim_states.pt'", file: directory.path)
  }

  @Test func ranksInOrderOfNumbers() throws {
    // 11 ranks with one element each, of which rank 10 would come second by letters.
    for rank in 0..<11 {
      try directory.write(partition(rank), model { $0.groups = [[("w", [11])]] }.bytes)
      let file = ZeROBuilder.optimizer(stage: 3, counts: [11], [.float32([Float(rank)])])
      try directory.write(optimizer(rank), file)
    }
    try check(open(), [("w", .float32(floats(0...10)))])
  }

  // MARK: - Universal

  @Test func parametersInFilesOfTheirOwn() throws {
    let buffer = Tensor.bfloat16([0.5, 1])
    let folder = directory.path("u")
    _ = try directory.makeDirectory("u")
    try directory.write(
      "u/" + module,
      model {
        $0.module = [("a.weight", .bfloat16(floats(0...14), [5, 3])), ("buffer", buffer), ("tied", .empty)]
        $0.shared = [("tied", "b.weight")]
      }.bytes)
    // The conversion writes everything in the module, as float32.
    for (name, tensor) in example + [("buffer", .float32([0.5, 1])), ("tied", .float32([])), ("more", .float32([3]))] {
      _ = try directory.makeDirectory("u/zero/\(name)")
      try directory.write("u/zero/\(name)/fp32.pt", ZeROBuilder.parameter(tensor, isVector: name == "b.weight"))
    }
    try directory.write("latest_universal", Array("u".utf8))
    let checkpoint = try open()
    #expect(checkpoint.tensors.map(\.name) == ["a.bias", "a.weight", "b.weight", "more", "buffer", "tied"])
    #expect(checkpoint.path == folder && checkpoint.tied == [[2, 5]])
    #expect(checkpoint.fileNames.contains("zero/a.weight/fp32.pt"))
    try check(
      checkpoint,
      example + [("buffer", buffer), ("more", .float32([3])), ("tied", .float32(floats(20...34), [3, 5]))])
    try directory.write("u/zero/a.bias/fp32.pt", ZeROBuilder.parameter(.float32([1])))
    try refused(
      .malformed, "has shape [1], by the module's file it is [5]", file: "zero/a.bias/fp32.pt", tensor: "a.bias")
    try directory.write("u/zero/a.bias/fp32.pt", ZeROBuilder.parameter(.float32([1]), isVector: true))
    try refused(
      .malformed, "has shape [1], by the module's file it is [5]", file: "zero/a.bias/fp32.pt", tensor: "a.bias")
    try directory.write("u/zero/more/fp32.pt", ZeROBuilder.parameter(.float32([3]), isVector: true))
    try directory.write("u/zero/a.bias/fp32.pt", ZeROBuilder.parameter(.float32(floats(15...19))))
    try refused(
      .malformed, "is a vector, and nothing says what shape it has", file: "zero/more/fp32.pt", tensor: "more")
    try directory.write("u/zero/more/fp32.pt", ZeROBuilder.parameter(.float32([3])))
    try directory.write("u/zero/a.bias/fp32.pt", ZeROBuilder.File().bytes([("step", Pickle.integer(3))]))
    try refused(
      .malformed, "has neither a tensor nor one under 'param'", file: "zero/a.bias/fp32.pt", tensor: "a.bias")
    try directory.remove("u/zero/a.bias")
    try refused(.missing, "the file of the parameter is missing", file: "zero/a.bias/fp32.pt")
    // Of several ranks of tensor parallelism the module's files have parts.
    try directory.write("u/mp_rank_01_model_states.pt", model().bytes)
    try directory.write("u/zero/b.weight/fp32.pt", ZeROBuilder.parameter(.float32(floats(20...34), [3, 5])))
    let divided = try open()
    #expect(divided.tensors.map(\.name) == ["a.weight", "b.weight", "buffer", "more", "tied"])
    #expect(divided.warnings.count == 1 && divided.warnings[0].contains("where each rank has a part"))
  }

  // MARK: - Where it is, and what it is not

  @Test func latestNamesTheFolder() throws {
    _ = try directory.makeDirectory("global_step1")
    #expect(try !ZeROCheckpoint.isThere(in: InputDirectory(path: directory.path)))
    try refused(.missing, "holds no checkpoint of DeepSpeed", file: directory.path)
    try write(folder: "global_step1/")
    #expect(try ZeROCheckpoint.isThere(in: InputDirectory(path: directory.path)))
    #expect(try open().path == directory.path("global_step1"))
    _ = try directory.makeDirectory("global_step2")
    try write(folder: "global_step2/")
    try refused(.malformed, "holds 2 checkpoints of DeepSpeed and no file 'latest'", file: directory.path)
    try directory.write("latest", Array("global_step2\n".utf8))
    #expect(try open().path == directory.path("global_step2"))
    try check(open(), example)
    for tag in ["global_step3", "../global_step1", ""] {
      try directory.write("latest", Array(tag.utf8))
      #expect(try ZeROCheckpoint.isThere(in: InputDirectory(path: directory.path)))
      try refused(.missing, "names the folder '\(tag)', which is not there", file: "latest")
    }
  }

  @Test func whatIsDividedOtherwise() throws {
    for (name, message) in [
      ("mp_rank_01_model_states.pt", "holds parts of 2 tensor-parallel ranks: convert it with ds_to_universal.py"),
      ("zero_pp_rank_0_mp_rank_03_model_states.pt", "holds parts of 4 tensor-parallel ranks"),
      ("layer_0_expert_1_mp_rank_00_model_states.pt", "holds experts apart from the model"),
      ("expp_rank_0_mp_rank_00_optim_states.pt", "holds experts apart from the model"),
      ("layer_03-model_00-model_states.pt", "is one layer of a pipeline"),
    ] {
      try write()
      try directory.write(name, [])
      let isPart = message.contains("parts")
      try refused(.unsupported, message, file: isPart ? directory.path : name)
      try directory.remove(name)
    }
    try write { _, model in model.parts = 2 }
    try refused(.unsupported, "holds parts of 2 tensor-parallel ranks", file: partition(0))
    try write { _, model in
      model.more = [("ds_autoep_layers", Pickle.list([Pickle.dictionary([])]))]
    }
    try refused(.unsupported, "holds experts that AutoEP divides", file: partition(0))
    try write()
    try directory.write(module, model().bytes)
    try refused(.malformed, "is of stage 3, '\(module)' beside it of another", file: partition(0))
  }
}
