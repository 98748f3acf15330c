"""Models as Meta and Mistral publish them, made of models of transformers by the inverse of transformers' own scripts
(`convert_llama_weights_to_hf.py`, `convert_mistral_weights_to_hf.py`)."""

import json
import pathlib

import torch

NAMES = {
    "model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output",
    "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2", "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm",
}
COLUMNS = ("attention.wo", "feed_forward.w2")


def meta_name(name: str) -> str:
    name = name.removesuffix(".weight")
    head, _, rest = name.partition(".layers.")
    if not rest:
        return NAMES[name] + ".weight"
    layer, _, module = rest.partition(".")
    return f"layers.{layer}.{NAMES[module]}.weight"


def interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """The inverse of the scripts' `permute`."""
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def meta_tensors(model) -> dict[str, torch.Tensor]:
    config = model.config
    tensors = {}
    for name, weight in model.state_dict().items():
        name = meta_name(name)
        if ".wq." in name:
            weight = interleaved(weight, config.num_attention_heads)
        elif ".wk." in name:
            weight = interleaved(weight, config.num_key_value_heads)
        tensors[name] = weight.clone()
    return tensors


def divided(name: str, weight: torch.Tensor, parts: int, key_heads: int, splits_tokens: bool) -> list[torch.Tensor]:
    if weight.ndim == 1:
        return [weight] * parts
    if (".wk." in name or ".wv." in name) and key_heads < parts:
        # Neighbours have the same head.
        heads = weight.chunk(key_heads)
        return [heads[part * key_heads // parts] for part in range(parts)]
    is_columns = name.startswith("tok_embeddings") and not splits_tokens or any(part in name for part in COLUMNS)
    return list(weight.chunk(parts, dim=1 if is_columns else 0))


def write_parts(model, folder: pathlib.Path, parts: int, params: dict, splits_tokens=False, angles=True) -> pathlib.Path:
    """`consolidated.00.pth` and on, and `params.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = [{} for _ in range(parts)]
    for name, weight in meta_tensors(model).items():
        pieces = divided(name, weight, parts, model.config.num_key_value_heads, splits_tokens)
        for shard, piece in zip(shards, pieces, strict=True):
            shard[name] = piece.clone()
    for number, shard in enumerate(shards):
        if angles:
            shard["rope.freqs"] = torch.ones(4)
        torch.save(shard, folder / f"consolidated.{number:02}.pth")
    (folder / "params.json").write_text(json.dumps(params))
    return folder


def intermediate_size(n, ffn_dim_multiplier=1, multiple_of=256):
    """As the script has it."""
    return multiple_of * ((int(ffn_dim_multiplier * int(8 * n / 3)) + multiple_of - 1) // multiple_of)
