/// Methods whose weights are not read here, by the `quant_method` that config.json names.
package enum UnreadMethods {
  /// What each is, after its name.
  private static let texts = [
    "aqlm": "AQLM: sums of vectors from learned codebooks",
    "auto-round": "AutoRound",
    "bitnet": "BitNet: -1, 0 and 1, four in a byte, in an order of rows of its own",
    "eetq": "EETQ: int8 in the order of a GPU's tensor cores",
    "exl2": "EXL2: columns of several widths, in the order of a GPU's kernels",
    "exl3": "exl3: codes along a trellis, of rotated weights",
    "fouroversix": "fouroversix: NVFP4 with scales of two kinds",
    "fp_quant": "FP-Quant: MXFP4 or NVFP4 of rotated weights",
    "gemma": "Gemma's own: whole numbers of 2 to 8 bits with scales of ranges",
    "gguf": "GGUF: config.json says that the weights lie in a GGUF file",
    "higgs": "HIGGS: vectors of a grid, of rotated weights",
    "hqq": "HQQ",
    "intel/auto-round": "AutoRound",
    "metal": "Metal: affine groups in the order of Apple's kernels",
    "nvfp4": "NVFP4 as transformers has it: in the order of a GPU's kernels",
    "quanto": "quanto: tensors of its own, as pickles or under names of its own",
    "quark": "Quark: AMD's own settings",
    "quip": "QuIP#: vectors of a lattice, of rotated weights",
    "quip_sharp": "QuIP#: vectors of a lattice, of rotated weights",
    "sinq": "SINQ: scales of both rows and columns",
    "spqr": "SpQR: groups quantized twice, and outliers beside them",
    "torchao": "torchao: tensors of a class of its own, of which the header of no file speaks",
    "vptq": "VPTQ: vectors from learned codebooks",
  ]

  /// - Returns: the name itself for a method that is not known at all.
  package static func text(_ method: String) -> String { texts[method.lowercased()] ?? method }

  package static var names: [String] { texts.keys.sorted() }
}
