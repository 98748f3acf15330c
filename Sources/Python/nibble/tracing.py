"""Which tensor of a checkpoint each parameter of a model comes from, found out without reading either.

transformers builds the model from placeholders: tensors that have a shape, a dtype and the memory of one element, each
with a storage of its own. Afterwards every parameter and quantization statistic shows by its storage what it came from.
Weights that are converted while they are loaded (experts that are stacked) show nothing, and are refused.
"""

from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from torch import nn
from torch.distributed.tensor import DTensor

from .checkpoint import Checkpoint
from .errors import CheckpointError
from .lazy import TORCH


class Placeholder:
    """A tensor's shape without its values, for whoever asks for it, in whatever dtype."""

    def __init__(self, tensor, names: dict[int, tuple]):
        self.shape, self.get_shape, self.get_dtype = tensor.shape, tensor.get_shape, tensor.get_dtype
        self.dtype = getattr(torch, TORCH[tensor.dtype])
        self._name, self._names = tensor.name, names

    def __getitem__(self, index) -> "Placeholder":
        return self

    def to(self, device=None, dtype=None) -> torch.Tensor:
        """One element, repeated: as many as the shape has, in the memory of one."""
        one = torch.empty(1, dtype=dtype or self.dtype)
        # Kept, so that no other storage ever lies at its address.
        self._names[one.untyped_storage().data_ptr()] = (self._name, one)
        return one.expand(tuple(self.shape)) if self.shape else one.view(())


class Placeholders:
    """Those of a checkpoint, and which tensor a storage that came of them belongs to."""

    def __init__(self, checkpoint: Checkpoint):
        self._names: dict[int, tuple[str, torch.Tensor]] = {}
        # The JSON that bitsandbytes reads to know what the rest is comes as it is.
        self.tensors = {
            name: tensor.torch() if ".quant_state." in name else Placeholder(tensor, self._names)
            for name, tensor in checkpoint.items()
        }

    def has(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._names

    def name(self, tensor: torch.Tensor, place: str) -> str:
        if not self.has(tensor):
            raise converted(f"'{place}' is not a tensor of the checkpoint as it is")
        return self._names[tensor.untyped_storage().data_ptr()][0]


def converted(what: str) -> CheckpointError:
    return CheckpointError(
        f"{what}: this model converts its weights while it loads them and cannot be loaded in parts; "
        "load it without a mesh"
    )


@dataclass
class Place:
    """A parameter of the model: the modules that hold it, and the tensor that it comes from."""

    name: str
    source: str
    owners: list[tuple[nn.Module, str]]
    local: torch.Tensor | None = None

    def replace_by_meta(self) -> None:
        module, key = self.owners[0]
        old: Any = module._parameters[key]
        data = torch.empty(old.shape, dtype=old.dtype, device="meta")
        # A plain parameter in place of Params4bit: bitsandbytes takes the quantization state back from the module.
        new = nn.Parameter(data, requires_grad=old.requires_grad)
        for owner, owner_key in self.owners:
            owner._parameters[owner_key] = new

    def settle(self) -> None:
        module, key = self.owners[0]
        old: Any = module._parameters[key]
        assert self.local is not None
        local = self.local.to(old.dtype)
        tensor = DTensor.from_local(
            local, old.device_mesh, old.placements, run_check=False, shape=old.shape, stride=old.stride()
        )
        new = nn.Parameter(tensor, requires_grad=old.requires_grad)
        for owner, owner_key in self.owners:
            owner._parameters[owner_key] = new


@dataclass
class Statistic:
    """A tensor of a layer's quantization state, which every rank holds whole."""

    source: str
    state: object
    attribute: str
    tensor: torch.Tensor | None = None

    def settle(self) -> None:
        setattr(self.state, self.attribute, self.tensor)


@dataclass
class Traced:
    parameters: list[Place]
    statistics: list[Statistic]
    # Few and small: every rank reads them.
    buffers: list[tuple[nn.Module, str, str]]


def trace(model: nn.Module, placeholders: Placeholders, new: set[int]) -> Traced:
    """Where each tensor of the checkpoint went, in a model without an adapter; new parameters, by their identity, came
    from none."""
    parameters: dict[int, Place] = {}
    statistics: list[Statistic] = []
    buffers = []
    for path, module in model.named_modules():
        for key, buffer in module._buffers.items():
            if buffer is not None and placeholders.has(buffer):
                buffers.append((module, key, placeholders.name(buffer, f"{path}.{key}")))
        for key, parameter in module._parameters.items():
            if parameter is None or id(parameter) in new:
                continue
            if id(parameter) in parameters:
                parameters[id(parameter)].owners.append((module, key))
                continue
            name = f"{path}.{key}" if path else key
            parameters[id(parameter)] = Place(name, placeholders.name(parameter.data, name), [(module, key)])
        if isinstance(module, Linear4bit):
            states = [module.quant_state] + ([module.quant_state.state2] if module.quant_state.nested else [])
            for state in states:
                for attribute in ("absmax", "code"):
                    source = placeholders.name(getattr(state, attribute), f"{path}.weight.{attribute}")
                    statistics.append(Statistic(source, state, attribute))
    return Traced(list(parameters.values()), statistics, buffers)


def trace_copies(model: nn.Module, traced: Traced) -> None:
    """`modules_to_save` are trainable copies of modules, and begin with the same tensors."""
    sources = {(id(owner), key): place.source for place in traced.parameters for owner, key in place.owners}
    for path, wrapper in model.named_modules():
        copies = getattr(wrapper, "modules_to_save", None)
        for adapter, copy in copies.items() if isinstance(copies, nn.ModuleDict) else ():
            originals = dict(wrapper.original_module.named_modules())
            for inner, module in copy.named_modules():
                for key, parameter in module._parameters.items():
                    place = id(originals[inner]), key
                    # The copy of a new parameter has its values already.
                    if parameter is not None and place in sources:
                        name = ".".join(filter(None, (path, "modules_to_save", adapter, inner, key)))
                        traced.parameters.append(Place(name, sources[place], [(module, key)]))
