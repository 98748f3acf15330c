import Bytes
import GGUF
import Tensors

/// Which tensors are quantized at all: matrices, save those that are small and matter much.
enum QuantizedNames {
  /// Parts of the names of tensors that stay as they are.
  private static let kept = [
    "_norm.weight",
    // Of experts: what chooses them.
    "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight",
    // Gemma 3n.
    "altup", "laurel", "per_layer_model_proj",
    // Convolutions of state space models.
    "ssm_conv1d", "shortconv.conv.weight",
    "indexer.k_proj.weight", "indexer.q_proj.weight",
    // RWKV.
    "time_mix_first.weight", "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight",
    "time_mix_v1.weight", "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight",
    "time_mix_g1.weight", "time_mix_g2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    // T5's relative positions.
    "attn_rel_b.weight",
    // Images and sound.
    ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd", ".patch_merger",
    "a.rvq.codebook", "mm.a.code_embd",
  ]

  private static let keptWholeNames = ["position_embd.weight", "token_types.weight"]

  private static let keptByArchitecture = [
    "glm5-next": [
      "hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer_compressor_gate", "indexer_compressor_ape",
      "ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight", "ssm_g_b.weight", "ssm_beta.weight",
      "attn_kv_a_mqa.weight", "attn_k_b.weight", "attn_v_b.weight",
    ]
  ]

  static func include(_ tensor: GGUFTensor, architecture: String, leavesOutputTensor: Bool) -> Bool {
    let name = tensor.name.string
    guard tensor.isMatrix, endsInWeight(tensor), !keptWholeNames.contains(name) else { return false }
    if leavesOutputTensor, name == TensorRole.outputName { return false }
    return !kept.contains { name.hasBytes($0) }
      && keptByArchitecture[architecture, default: []].allSatisfy { !name.hasBytes($0) }
  }

  /// `llama-quantize` compares the place of the last `weight` with the length less 6, both without a sign: a name of
  /// five bytes passes as well, the place of nothing being the largest number.
  private static func endsInWeight(_ tensor: GGUFTensor) -> Bool {
    tensor.name.hasSuffix("weight") || tensor.name.byteCount == 5
  }
}

extension GGUFTensor {
  /// Whether it has more than one row; dimensions of 1 in front do not count.
  package var isMatrix: Bool { shape.dropLast().contains { $0 > 1 } }

  /// The number of values in a row.
  package var columns: Int { shape.last ?? 1 }

  /// Matrices that lie behind one another, of a tensor that holds those of all experts.
  package var experts: Int { shape.count >= 3 ? shape[shape.count - 3] : 1 }
}
