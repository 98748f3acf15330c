"""Directories in MLX's groups that are none: refused with what is wrong, and never more than that."""

import pytest
import torch
from safetensors.torch import load_file, save_file

import mlx_models
from architectures import BF16
from mlx_originals import change, copied
from tool import DIFFERENT, REJECTED, UNSUPPORTED, Nibble


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """In 4 bits, by the name of the model; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("llama", "mixtral"):
        Nibble().quantize(mlx_models.model(name).save(folder), folder / f"mlx-{name}", "--scheme", "mlx-q4")
    return lambda name: folder / f"mlx-{name}"


def settings(**members) -> dict:
    return {"quantization": {"group_size": 64, "bits": 4, "mode": "affine", **members}}


def set_to(name: str, edit):
    def apply(tensors: dict) -> None:
        tensors[name] = edit(tensors[name]).contiguous()
    return apply


Q = "model.layers.0.self_attn.q_proj"
HOSTILE = {
    "bits-7": (UNSUPPORTED, "7 bits in groups of 64 are not known here", None, settings(bits=7)),
    "bits-0": (REJECTED, "bits is 0", None, settings(bits=0)),
    "bits-negative": (REJECTED, "bits is -4", None, settings(bits=-4)),
    "bits-text": (REJECTED, "bits is a string", None, settings(bits="4")),
    "bits-huge": (UNSUPPORTED, "9223372036854775807 bits", None, settings(bits=2**63 - 1)),
    "bits-beyond": (REJECTED, "bits is 9223372036854775808", None, settings(bits=2**63)),
    "bits-missing": (REJECTED, "has no 'bits'", None, {"quantization": {"group_size": 64}}),
    "group-0": (REJECTED, "group_size is 0", None, settings(group_size=0)),
    "group-16": (UNSUPPORTED, "in groups of 16 are not known here", None, settings(group_size=16)),
    "group-huge": (UNSUPPORTED, "groups of 9223372036854775807", None, settings(group_size=2**63 - 1)),
    "group-real": (REJECTED, "group_size is 64.5", None, settings(group_size=64.5)),
    "group-other": (REJECTED, "config.json does not agree with: 4 bits in groups of 32", None, settings(group_size=32)),
    "bits-other": (REJECTED, "config.json does not agree with: 8 bits in groups of 64", None, settings(bits=8)),
    "mode-unknown": (UNSUPPORTED, "mode 'nvfp4' is not known here", None, settings(mode="nvfp4")),
    "mode-number": (REJECTED, "mode is a number", None, settings(mode=4)),
    "mode-mxfp4": (REJECTED, "'.scales' is BF16, allowed is U8", None, settings(mode="mxfp4", group_size=32)),
    "own-number": (REJECTED, f"quantization, '{Q}': is a number", None, settings(**{Q: 4})),
    "own-null": (REJECTED, f"quantization, '{Q}': is null", None, settings(**{Q: None})),
    "own-list": (REJECTED, f"quantization, '{Q}': is an array", None, settings(**{Q: [4]})),
    "own-bits": (REJECTED, "bits is true or false", None, settings(**{Q: {"bits": True}})),
    "own-other": (REJECTED, "does not agree with: 2 bits", None, settings(**{Q: {"bits": 2, "group_size": 64}})),
    "own-unknown": (UNSUPPORTED, "9 bits", None, settings(**{Q: {"bits": 9}})),
    "own-false": (REJECTED, "is not quantized", None, settings(**{Q: False})),
    "no-scales": (REJECTED, "'.scales' is missing", lambda tensors: tensors.pop(f"{Q}.scales"), {}),
    "no-biases": (REJECTED, "'.biases' is missing", lambda tensors: tensors.pop(f"{Q}.biases"), {}),
    "no-codes": (REJECTED, "are scales of a weight that is not there",
                 lambda tensors: tensors.pop(f"{Q}.weight"), {}),
    "scales-f64": (REJECTED, "'.scales' is F64", set_to(f"{Q}.scales", torch.Tensor.double), {}),
    "scales-u8": (REJECTED, "'.scales' is U8", set_to(f"{Q}.scales", lambda t: t.to(torch.uint8)), {}),
    "scales-wide": (REJECTED, "does not agree with", set_to(f"{Q}.scales", lambda t: torch.cat([t, t], 1)), {}),
    "scales-flat": (REJECTED, "'.scales' has shape", set_to(f"{Q}.scales", torch.Tensor.flatten), {}),
    "scales-scalar": (REJECTED, "'.scales' has shape", set_to(f"{Q}.scales", lambda t: t[0, 0]), {}),
    "biases-f32": (REJECTED, "'.biases' is F32", set_to(f"{Q}.biases", torch.Tensor.float), {}),
    "biases-rows": (REJECTED, "'.biases' is BF16 of shape", set_to(f"{Q}.biases", lambda t: t[1:]), {}),
    "codes-i32": (REJECTED, "no U32 codes", set_to(f"{Q}.weight", lambda t: t.view(torch.int32)), {}),
    "codes-flat": (REJECTED, "no U32 codes", set_to(f"{Q}.weight", torch.Tensor.flatten), {}),
    "codes-narrow": (REJECTED, "does not agree with", set_to(f"{Q}.weight", lambda t: t[:, 1:]), {}),
    "codes-rows": (REJECTED, "'.scales' has shape", set_to(f"{Q}.weight", lambda t: t[1:]), {}),
    "class-unknown": (UNSUPPORTED, "model_type 'opt', whose form in mlx-lm is not known", None, {"model_type": "opt"}),
    "class-none": (UNSUPPORTED, "model_type '', whose form", None, {"model_type": None}),
    "class-of-another": (UNSUPPORTED, "mlx-lm loads LlamaForCausalLM only", None,
                         {"architectures": ["LlamaForSequenceClassification"]}),
    "other-name": (REJECTED, "is missing", lambda tensors: tensors.update(
        {"model.layers.0.x.weight": tensors.pop("model.norm.weight")}), {}),
}


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_sound_twin(name, made, nibble: Nibble, tmp_path):
    nibble.run("convert", copied(made(name), tmp_path), "-o", tmp_path / "out")


@pytest.mark.parametrize("name", HOSTILE)
def test_refused(name, made, nibble: Nibble, tmp_path):
    code, message, tensors, config = HOSTILE[name]
    folder = copied(made("llama"), tmp_path)
    change(folder, tensors, **config)
    for verb in (["convert"], ["convert", "--dtype", "float32"], ["quantize", "--force-requantize"]):
        result = nibble.run(*verb, folder, "-o", tmp_path / "out", expect=code)
        assert message in result.stderr, result.stderr
    result = nibble.run("convert", folder, "-o", tmp_path / "out.gguf", expect=code)
    assert message in result.stderr, result.stderr
    result = nibble.run("fit", folder, expect=code)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.gguf").exists()
    # It can be looked at, compared with itself and copied, whatever it is.
    nibble.run("inspect", folder)
    nibble.run("inspect", folder, "--raw")
    nibble.run("verify", folder, expect=DIFFERENT if code == REJECTED and name != "other-name" else 0)
    if code == UNSUPPORTED:
        nibble.run("diff", folder, folder)
    nibble.run("split", folder, "-o", tmp_path / "parts")


@pytest.mark.parametrize(("code", "message", "config", "edit"), [
    (REJECTED, "holds 4 experts, and 'num_local_experts' in config.json says otherwise", {"num_local_experts": 5}, None),
    (REJECTED, "says otherwise", {"num_local_experts": "4"}, None),
    (REJECTED, "which is no stack of experts", {}, lambda tensor: tensor[0]),
    (REJECTED, "which is no stack of experts", {}, lambda tensor: tensor[:, :0]),
    (REJECTED, "says otherwise", {}, lambda tensor: tensor[1:]),
])
def test_refused_experts(code, message, config, edit, made, nibble: Nibble, tmp_path):
    folder = copied(made("mixtral"), tmp_path)
    stack = "model.layers.0.block_sparse_moe.switch_mlp.up_proj"

    def tensors(found: dict) -> None:
        for part in ("weight", "scales", "biases"):
            found[f"{stack}.{part}"] = edit(found[f"{stack}.{part}"]).contiguous()

    change(folder, tensors if edit else None, **config)
    result = nibble.run("convert", folder, "-o", tmp_path / "out", expect=code)
    assert message in result.stderr, result.stderr


def test_endless_experts(made, nibble: Nibble, tmp_path):
    """A stack of nothing is no reason to count to 2^40."""
    folder = copied(made("mixtral"), tmp_path)
    found = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if "switch" not in name}
    found["model.layers.0.block_sparse_moe.switch_mlp.up_proj.weight"] = torch.zeros(2**40, 0, 64, dtype=BF16)
    save_file(found, folder / "model.safetensors", {"format": "mlx"})
    change(folder, num_local_experts=2**40)
    result = nibble.run("convert", folder, "-o", tmp_path / "out", expect=REJECTED)
    assert "which is no stack of experts" in result.stderr


def test_without_configuration(made, nibble: Nibble, tmp_path):
    """How wide codes are, config.json alone says."""
    folder = copied(made("llama"), tmp_path)
    (folder / "config.json").unlink()
    for source in (folder, made("llama") / "model.safetensors"):
        result = nibble.run("convert", source, "-o", tmp_path / "out", "--dtype", "float32", expect=UNSUPPORTED)
        assert "(MLX)" in result.stderr
