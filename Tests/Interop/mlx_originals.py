"""What a directory in MLX's groups stands for: the checkpoint of transformers, by MLX's own dequantization."""

import json
import pathlib
import re
import shutil

import mlx.core as mx
import numpy as np
import torch
from safetensors.torch import load_file, save_file

import checkpoint

# What transformers calls an expert's matrices where it has other names than mlx-lm.
PROJECTIONS = {"mixtral": {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}}
CONV1D = re.compile(r"\.(attn|mlp)\.(c_attn|c_proj|c_fc)\.weight$")
STACK = re.compile(r"(.*)\.switch_mlp\.(\w+)\.weight$")


def to_torch(array: mx.array) -> torch.Tensor:
    """Bit for bit; numpy has no bfloat16."""
    if array.dtype == mx.bfloat16:
        return torch.from_numpy(np.array(array.view(mx.int16))).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def load(folder: pathlib.Path) -> dict[str, mx.array]:
    found = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        found |= mx.load(str(path))
    return found


def settings(config: dict, module: str) -> dict:
    """As mlx-lm reads them."""
    stated = config["quantization"]
    own = stated.get(module, True)
    if isinstance(own, dict):
        return {"mode": "affine", **own}
    return {"mode": stated.get("mode", "affine"), "group_size": stated["group_size"], "bits": stated["bits"]}


def dequantized(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    """Under mlx-lm's names."""
    config, found = checkpoint.config(folder), load(folder)
    values = {}
    for name, array in found.items():
        module = name.removesuffix(".weight")
        if name.endswith((".scales", ".biases")):
            continue
        if f"{module}.scales" in found and name != module:
            array = mx.dequantize(
                array, found[f"{module}.scales"], found.get(f"{module}.biases"), **settings(config, module))
        values[name] = to_torch(array)
    return values


def originals(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    """Under the names of transformers."""
    kind = checkpoint.config(folder)["model_type"]
    values = {}
    for name, tensor in dequantized(folder).items():
        if stack := STACK.match(name):
            projection = PROJECTIONS.get(kind, {}).get(stack[2], stack[2])
            for number, expert in enumerate(tensor):
                values[f"{stack[1]}.experts.{number}.{projection}.weight"] = expert.contiguous()
            continue
        if kind == "gpt2":
            name = "transformer." + name.removeprefix("model.")
            if CONV1D.search(name):
                tensor = tensor.T.contiguous()
        values[name] = tensor
    return values


def plain_config(folder: pathlib.Path) -> dict:
    config = checkpoint.config(folder)
    return {key: value for key, value in config.items() if key not in ("quantization", "quantization_config")}


def write(folder: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """The checkpoint that it stands for."""
    out.mkdir()
    (out / "config.json").write_text(json.dumps(plain_config(folder)))
    save_file(originals(folder), out / "model.safetensors", {"format": "pt"})
    return out


def copied(folder: pathlib.Path, parent: pathlib.Path) -> pathlib.Path:
    """Without the manifest, to be changed."""
    out = shutil.copytree(folder, parent / "model")
    for name in ("nibble-manifest.json", "checksums.xxh128"):
        (out / name).unlink()
    return out


def change(folder: pathlib.Path, tensors=None, **config) -> None:
    """`tensors` edits them in place."""
    file = folder / "model.safetensors"
    if tensors:
        found = load_file(file)
        tensors(found)
        save_file(found, file, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(checkpoint.config(folder) | config))
