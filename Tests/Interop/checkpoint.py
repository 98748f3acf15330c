"""Checkpoints as the stock safetensors library sees them."""

import dataclasses
import json
import pathlib

import torch
from safetensors import safe_open

COMPANIONS = (".absmax", ".nested_absmax", ".nested_quant_map", ".quant_map", ".quant_state.bitsandbytes__")


def shard_tensors(path: pathlib.Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def header(path: pathlib.Path) -> dict[str, str]:
    """What a file of safetensors says beside its tensors."""
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def tensors(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    """Every tensor of a folder; no name may occur in two shards, and the index must name them all."""
    found, shards = {}, {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        for name, tensor in shard_tensors(path).items():
            assert name not in found, f"{name} occurs twice"
            found[name] = tensor
            shards[name] = path.name
    index = pathlib.Path(folder) / "model.safetensors.index.json"
    if index.exists():
        assert json.loads(index.read_text())["weight_map"] == shards
    else:
        assert set(shards.values()) == {"model.safetensors"}
    return found


def config(folder: pathlib.Path) -> dict:
    return json.loads((pathlib.Path(folder) / "config.json").read_text())


def is_companion(name: str) -> bool:
    """True for the statistics that stand beside a packed weight."""
    return any(part in name for part in COMPANIONS)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Bit for bit: NaN equals itself, and −0 is not 0."""
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and torch.equal(a.contiguous().flatten().view(torch.uint8), b.contiguous().flatten().view(torch.uint8))
    )


def ulps(a: torch.Tensor, b: torch.Tensor) -> int:
    """How many single-precision numbers apart two values of the same sign are."""
    return abs(int(a.view(torch.int32)) - int(b.view(torch.int32)))


@dataclasses.dataclass
class FourBit:
    """One quantized weight as it lies in the file."""

    packed: torch.Tensor
    parts: dict[str, torch.Tensor]
    state: dict
    text: str
    kind: str

    @property
    def offset(self) -> torch.Tensor:
        return torch.tensor(self.state["nested_offset"], dtype=torch.float32)


def four_bit_weights(found: dict[str, torch.Tensor]) -> dict[str, FourBit]:
    """The quantized weights among tensors, with every companion accounted for."""
    marker = ".quant_state.bitsandbytes__"
    weights = {}
    for key in [key for key in found if marker in key]:
        name, kind = key.split(marker)
        parts = {part[len(name) + 1 :]: found[part] for part in found if part.startswith(name + ".")}
        text = bytes(parts.pop(f"quant_state.bitsandbytes__{kind}").tolist()).decode()
        weights[name] = FourBit(found[name], parts, json.loads(text), text.rstrip(" "), kind)
    known = {f"{name}.{part}" for name, weight in weights.items() for part in weight.parts}
    strays = [key for key in found if is_companion(key) and key not in known and marker not in key]
    assert not strays, f"statistics without a quant_state: {strays}"
    return weights
