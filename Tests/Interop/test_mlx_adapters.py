"""Adapters of mlx-lm: merged as mlx-lm itself fuses them, and converted to what PEFT loads."""

import argparse
import json

import mlx.core as mx
import mlx_lm
import numpy as np
import peft
import pytest
import torch
import transformers
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters
from mlx_lm.utils import save_config
from safetensors.torch import load_file

import checkpoint
import mlx_models
import peft_merge
from adapters import row
from architectures import F32, text
from checkpoint import same
from mlx_models import Model
from tool import REJECTED, UNSUPPORTED, USAGE

LLAMA = Model("adapted", "LlamaForCausalLM", text(layers=3), F32)
TIED = Model("adapted-tied", "LlamaForCausalLM", text(tie_word_embeddings=True), F32)
MOE = Model("adapted-moe", "Qwen3MoeForCausalLM", text(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
                                                       head_dim=32), F32, change={"num_experts": 4})


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Not to be changed."""
    return mlx_models.Models(tmp_path_factory.mktemp("mlx"))


def train(base, out, layers: int, parameters: dict, kind: str = "lora", seed: int = 1):
    """As mlx_lm.lora saves it, every trainable parameter changed by some noise."""
    model, _ = mlx_lm.load(str(base))
    mx.random.seed(seed)
    model.freeze()
    if kind == "full":
        for layer in model.layers[-layers:]:
            layer.unfreeze()
    else:
        linear_to_lora_layers(model, layers, parameters, use_dora=kind == "dora")
    weights = {name: value + 0.05 * mx.random.normal(value.shape).astype(value.dtype)
               for name, value in tree_flatten(model.trainable_parameters())}
    out.mkdir()
    mx.save_safetensors(str(out / "adapters.safetensors"), weights)
    mx.save_safetensors(str(out / "0000100_adapters.safetensors"), weights)
    arguments = argparse.Namespace(
        model=str(base), fine_tune_type=kind, num_layers=layers, iters=100, seed=0,
        lora_parameters=None if kind == "full" else parameters)
    save_config(vars(arguments), out / "adapter_config.json")
    return out


def fused(base, adapter) -> tuple[dict, dict]:
    """The weights as mlx_lm.fuse has them, and for each that changed the sum of what it is made of, in magnitudes."""
    model, _ = mlx_lm.load(str(base))
    model = load_adapters(model, str(adapter))
    sizes = {}
    for name, module in model.named_modules():
        if not hasattr(module, "fuse"):
            continue
        factors = [np.abs(np.array(factor)) for factor in (module.lora_a, module.lora_b)]
        delta = module.scale * (factors[0] @ factors[1])
        inner = module.embedding if hasattr(module, "embedding") else module.linear
        weight = np.array(inner.weight)
        size = np.abs(weight) + (delta if hasattr(module, "embedding") else delta.T)
        # DoRA divides by a norm that is computed from all of these and multiplies with a length.
        if hasattr(module, "m"):
            plain = weight + module.scale * (np.array(module.lora_a) @ np.array(module.lora_b)).T
            size *= (np.abs(np.array(module.m)) / np.linalg.norm(plain, axis=1))[:, None]
        sizes[name + ".weight"] = size
    model.update_modules(tree_unflatten([(n, m.fuse()) for n, m in model.named_modules() if hasattr(m, "fuse")]))
    return {name: np.array(value) for name, value in tree_flatten(model.parameters())}, sizes


def parameters(rank: int, scale: float, *keys: str) -> dict:
    return {"rank": rank, "scale": scale, "dropout": 0.0} | ({"keys": list(keys)} if keys else {})


CASES = {
    "all": (LLAMA, 3, parameters(4, 20.0), "lora"),
    "last layer": (LLAMA, 1, parameters(3, 0.1, "self_attn.q_proj", "mlp.down_proj"), "lora"),
    "dora": (LLAMA, 2, parameters(4, 2.0, "self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj"), "dora"),
    "head": (LLAMA, 2, parameters(4, 10.0, "self_attn.v_proj", "lm_head", "model.embed_tokens"), "lora"),
    "attention of experts": (MOE, 2, parameters(4, 5.0, "self_attn.q_proj", "mlp.gate"), "lora"),
}


@pytest.mark.parametrize("name", CASES)
def test_merge(nibble, models, tmp_path, name):
    """What mlx_lm.fuse makes in 32 bits, but for the order of sums, and PEFT of the adapter that is made of it."""
    model, layers, settings, kind = CASES[name]
    base = models.directory(model)
    adapter = train(base, tmp_path / "adapter", layers, settings, kind)
    nibble.run("merge", base, adapter, "-o", tmp_path / "out", "--quiet")
    found = checkpoint.tensors(tmp_path / "out")
    theirs, sizes = fused(base, adapter)
    before = checkpoint.tensors(base)
    assert sizes
    for key, value in theirs.items():
        if key not in found:
            # Experts, which mlx-lm stacks, and which are not adapted.
            assert "switch_mlp" in key
            continue
        size = sizes.pop(key, None)
        if size is None:
            assert same(found[key], before[key])
            continue
        assert not same(found[key], before[key])
        # Each side rounds r products, the sum with the weight, and with DoRA a norm of the row, a quotient, a product.
        steps = settings["rank"] + 2 + (value.shape[1] + 4 if kind == "dora" else 0)
        assert (np.abs(found[key].numpy() - value) <= 2 * steps * 2.0**-24 * size).all(), key
    assert not sizes

    nibble.run("convert", adapter, "-o", tmp_path / "peft", "--quiet")
    assert {path.name for path in (tmp_path / "peft").iterdir()} == {
        "adapter_model.safetensors", "adapter_config.json", "nibble-manifest.json", "checksums.xxh128"}
    nibble.verify(tmp_path / "peft", "--against", adapter)
    config = peft.PeftConfig.from_pretrained(tmp_path / "peft")
    assert config.r == settings["rank"] and config.use_dora == (kind == "dora")
    assert config.lora_alpha / config.r == pytest.approx(settings["scale"], rel=1e-15)
    ours = load_file(tmp_path / "peft/adapter_model.safetensors")
    assert len(ours) == len(load_file(adapter / "adapters.safetensors"))
    nibble.run("merge", base, tmp_path / "peft", "-o", tmp_path / "again", "--quiet")
    again = checkpoint.tensors(tmp_path / "again")
    assert again.keys() == found.keys() and all(same(again[key], found[key]) for key in found)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").eval()
    peft_merge.check_tensors(model.state_dict(), peft_merge.reference(row("plain-f32"), base, tmp_path / "peft"))


def test_every_verb(nibble, models, tmp_path):
    base = models.directory(LLAMA)
    adapter = train(base, tmp_path / "adapter", 1, parameters(4, 2.0, "self_attn.q_proj"))
    report = nibble.json("inspect", adapter)
    assert report["adapter"]["rank"] == 4 and report["adapter"]["alpha"] == 8
    assert report["adapter"]["targetModules"] == ["self_attn.q_proj"]
    prefix = "base_model.model.model.layers.2.self_attn.q_proj.lora_"
    assert {row["name"]: row["shape"] for row in report["tensors"]} == {
        prefix + "A.weight": [4, 64], prefix + "B.weight": [64, 4]}
    nibble.verify(adapter)
    nibble.run("convert", adapter, "-o", tmp_path / "half", "--dtype", "float16", "--quiet")
    assert {tensor.dtype for tensor in load_file(tmp_path / "half/adapter_model.safetensors").values()} == {torch.float16}
    config = json.loads((tmp_path / "half/adapter_config.json").read_text())
    assert config["layers_to_transform"] == [2] and config["target_modules"] == ["self_attn.q_proj"]
    nibble.run("convert", adapter, "-o", tmp_path / "peft", "--quiet")
    assert nibble.json("diff", adapter, tmp_path / "peft")["equal"]
    nibble.run("convert", adapter, "-o", tmp_path / "adapter.gguf", "--base", base, "--quiet")
    nibble.run("convert", tmp_path / "peft", "-o", tmp_path / "peft.gguf", "--base", base, "--quiet")
    assert nibble.json("diff", tmp_path / "adapter.gguf", tmp_path / "peft.gguf")["equal"]
    assert "is an adapter" in nibble.run(
        "quantize", adapter, "-o", tmp_path / "none", expect=UNSUPPORTED).stderr
    assert "--base" in nibble.run("convert", adapter, "-o", tmp_path / "none.gguf", expect=USAGE).stderr


def test_two_adapters(nibble, models, tmp_path):
    """One of each kind, added up."""
    base = models.directory(LLAMA)
    ours = train(base, tmp_path / "ours", 1, parameters(4, 2.0, "self_attn.q_proj"))
    nibble.run("convert", train(base, tmp_path / "theirs", 1, parameters(2, 3.0, "self_attn.q_proj"), seed=2),
               "-o", tmp_path / "peft", "--quiet")
    for name, adapters in [("a", [ours, tmp_path / "peft"]), ("b", [tmp_path / "theirs", ours])]:
        nibble.run("merge", base, *adapters, "-o", tmp_path / name, "--quiet")
    one, other = (checkpoint.tensors(tmp_path / name) for name in "ab")
    assert all(same(one[key], other[key]) for key in one)


def test_base_in_groups(nibble, models, tmp_path):
    """What was trained on a base in MLX's 4 bits is merged into the values that it stands for."""
    nibble.quantize(models.directory(LLAMA), tmp_path / "mlx", "--scheme", "mlx-q4", "--group-size", "32")
    adapter = train(tmp_path / "mlx", tmp_path / "adapter", 2, parameters(4, 2.0))
    nibble.run("convert", tmp_path / "mlx", "-o", tmp_path / "wide", "--quiet")
    for name in ("mlx", "wide"):
        nibble.run("merge", tmp_path / name, adapter, "-o", tmp_path / f"{name}-merged", "--quiet")
    one, other = (checkpoint.tensors(tmp_path / f"{name}-merged") for name in ("mlx", "wide"))
    assert one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    before = checkpoint.tensors(tmp_path / "wide")
    # All seven linear layers of the last two of three.
    assert len([key for key in one if not same(one[key], before[key])]) == 14


@pytest.mark.parametrize(("kind", "change", "code", "words"), [
    ("full", {}, UNSUPPORTED, ["fine_tune_type is 'full'", "mlx_lm.fuse"]),
    ("lora", {"fine_tune_type": "other"}, UNSUPPORTED, ["'other'"]),
    ("lora", {"lora_parameters": {"rank": 4, "alpha": 8}}, REJECTED, ["'scale'", "alpha/rank"]),
    ("lora", {"lora_parameters": {"rank": 5, "scale": 8}}, REJECTED, ["the rank 5", ".lora_"]),
    ("dora", {"fine_tune_type": "lora"}, REJECTED, [".m'", "not 'dora'"]),
])
def test_refusals(nibble, models, tmp_path, kind, change, code, words):
    base = models.directory(LLAMA)
    adapter = train(base, tmp_path / "adapter", 1, parameters(4, 2.0, "self_attn.q_proj"), kind)
    config = json.loads((adapter / "adapter_config.json").read_text()) | change
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    for command in [("merge", base, adapter), ("convert", adapter), ("inspect", adapter)]:
        options = [] if command[0] == "inspect" else ["-o", tmp_path / "out"]
        error = nibble.run(*command, *options, expect=code).stderr
        assert all(word in error for word in words) and not (tmp_path / "out").exists()


def test_experts_are_refused(nibble, models, tmp_path):
    """They are stacked, which PEFT has no form of."""
    base = models.directory(MOE)
    adapter = train(base, tmp_path / "adapter", 1, parameters(4, 2.0, "mlp.switch_mlp.up_proj"))
    error = nibble.run("merge", base, adapter, "-o", tmp_path / "out", expect=UNSUPPORTED).stderr
    assert "switch_mlp.up_proj.lora_" in error and "experts" in error
