"""A Gemma 3 of 270M parameters with made-up weights and a made-up SentencePiece vocabulary, in GGUF.

Run as a program it writes one, vocabulary.py FOLDER TOKENS: FOLDER/model.gguf, in Q4_K_M. Layers and head are those of
the real model; pieces are made of shorter ones, as training makes them.
"""

import itertools
import json
import pathlib
import sys

import models
from measure import NIBBLE, run


class Gemma3:
    """As `models.Shape`, for what `models.write` asks."""

    dtype = "bfloat16"

    def __init__(self, tokens: int, layers: int = 18, hidden: int = 640, inner: int = 2048, heads: int = 4, head: int = 256):
        self.tokens, self.layers, self.hidden, self.inner, self.heads, self.head = tokens, layers, hidden, inner, heads, head

    def tensors(self) -> list[tuple[str, list[int]]]:
        hidden, inner, wide = self.hidden, self.inner, self.heads * self.head
        rows = [("model.embed_tokens.weight", [self.tokens, hidden])]
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            rows += [(f"{prefix}self_attn.{name}_proj.weight", [size, hidden])
                     for name, size in (("q", wide), ("k", self.head), ("v", self.head))]
            rows.append((f"{prefix}self_attn.o_proj.weight", [hidden, wide]))
            rows += [(f"{prefix}self_attn.{name}_norm.weight", [self.head]) for name in "qk"]
            rows += [(f"{prefix}mlp.{name}_proj.weight", [inner, hidden]) for name in ("gate", "up")]
            rows.append((f"{prefix}mlp.down_proj.weight", [hidden, inner]))
            rows += [(f"{prefix}{name}_layernorm.weight", [hidden]) for name in
                     ("input", "post_attention", "pre_feedforward", "post_feedforward")]
        return rows + [("model.norm.weight", [hidden])]

    def config(self) -> dict:
        return {
            "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_size": self.hidden,
            "intermediate_size": self.inner, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": 1, "head_dim": self.head, "vocab_size": self.tokens, "sliding_window": 512,
            "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
            "query_pre_attn_scalar": 256, "hidden_activation": "gelu_pytorch_tanh", "sliding_window_pattern": 6,
            "tie_word_embeddings": True, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "torch_dtype": "bfloat16",
        }


def pieces(count: int) -> list[str]:
    """Letters, syllables of two, and what two and three syllables make: almost two merges for each, as Gemma has."""
    letters = "▁" + "".join(map(chr, (*range(0x61, 0x7B), *range(0x41, 0x56), *range(0x430, 0x440))))
    syllables = [letters[index] + letters[index * 7 % len(letters)] for index in range(len(letters))]
    made = ("".join(parts) for size in (2, 3) for parts in itertools.product(syllables, repeat=size))
    return list(itertools.islice(itertools.chain(letters, syllables, made), count))


def tokenizer(count: int) -> bytes:
    """`tokenizer.model`."""
    from sentencepiece import sentencepiece_model_pb2 as proto

    model = proto.ModelProto()
    for name, kind in (("<pad>", 3), ("<eos>", 3), ("<bos>", 3), ("<unk>", 2)):
        model.pieces.add(piece=name, score=0, type=kind)
    for byte in range(256):
        model.pieces.add(piece=f"<0x{byte:02X}>", score=0, type=6)
    for number, piece in enumerate(pieces(count - 260)):
        model.pieces.add(piece=piece, score=-number)
    spec = model.trainer_spec
    spec.model_type, spec.vocab_size, spec.byte_fallback = proto.TrainerSpec.BPE, count, True
    spec.pad_id, spec.eos_id, spec.bos_id, spec.unk_id = 0, 1, 2, 3
    spec.pad_piece, spec.eos_piece, spec.bos_piece, spec.unk_piece = "<pad>", "<eos>", "<bos>", "<unk>"
    model.normalizer_spec.name, model.normalizer_spec.add_dummy_prefix = "identity", False
    model.normalizer_spec.remove_extra_whitespaces = False
    return model.SerializeToString()


def write(folder: pathlib.Path, tokens: int, **sizes: int) -> pathlib.Path:
    source = folder / "gemma3"
    models.write(Gemma3(tokens, **sizes), source, 5_000_000_000, False)
    (source / "tokenizer.model").write_bytes(tokenizer(tokens))
    settings = {"add_bos_token": True, "add_eos_token": False, "bos_token": "<bos>", "eos_token": "<eos>",
                "unk_token": "<unk>", "pad_token": "<pad>", "tokenizer_class": "GemmaTokenizer"}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    run(NIBBLE, "quantize", source, "-o", folder / "model.gguf", "--scheme", "q4_k_m", "--quiet")
    return folder / "model.gguf"


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
