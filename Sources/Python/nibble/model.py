"""A transformers model, filled from the memory map of its checkpoint.

transformers builds the model (on the meta device), replaces its linear layers by bitsandbytes' and decides which tensor
goes where, by its own rules; only what it would read from files comes from here instead: tensors on the map, checked
when they are first touched. So the result is that of `from_pretrained`, whatever the architecture, and nothing is
copied on its way to the device: on the CPU the weights are the file's own pages, shared by every process that loads it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import transformers
from bitsandbytes.nn import Linear4bit, Params4bit
from transformers import GenerationConfig, PreTrainedModel

from .architecture import Architecture
from .checkpoint import Checkpoint
from .errors import CheckpointError
from .lazy import LazyTensor

if TYPE_CHECKING:
    from peft import PeftConfig


def set_bytes_read(model: Any, checkpoint: Checkpoint) -> None:
    model.nibble_bytes_read = checkpoint.bytes_read


class FourBitWeight:
    """A packed weight and its statistics, as one tensor that transformers finds ready-made.

    It would collect the six parts of it by itself, and copies its rules and its quantizer for each of them.
    """

    def __init__(self, weight: LazyTensor, parts: dict[str, LazyTensor]) -> None:
        self._weight, self._parts = weight, parts
        self.shape = weight.shape

    def get_shape(self) -> list[int]:
        return list(self.shape)

    def get_dtype(self) -> str:
        # Whatever the storage type: packed codes are never cast.
        return "U8"

    def __getitem__(self, index: object) -> FourBitWeight:
        return self

    def to(self, device: Any = None, dtype: Any = None) -> Params4bit:
        """The parameter, made where it is to be."""
        parts = {name: part[...] for name, part in self._parts.items()}
        return Params4bit.from_prequantized(self._weight[...], parts, device=device)


def source(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers is to read from."""
    if int(transformers.__version__.split(".")[0]) < 5:
        # Version 4 wants tensors as they are in the file, and not lazy ones.
        return {name: tensor[...] for name, tensor in tensors.items()}
    parts: dict[str, dict] = {}
    for name in tensors:
        weight, _, kind = name.partition(".quant_state.bitsandbytes__")
        if kind:
            parts[weight] = {}
    state = {}
    for name, tensor in tensors.items():
        weight = name.rpartition(".")[0]
        for owner in (weight, weight.rpartition(".")[0]):
            if owner in parts and owner in tensors:
                # As bitsandbytes knows them: without the weight's own name.
                parts[owner][name.removeprefix(f"{owner}.")] = tensor
                break
        else:
            state[name] = tensor
    return {name: FourBitWeight(tensor, parts[name]) if name in parts else tensor for name, tensor in state.items()}


def build(
    checkpoint: Checkpoint, architecture: Architecture, state: dict, device: torch.device
) -> tuple[PreTrainedModel, list[torch.nn.Parameter]]:
    """The model, its weights taken from `state`, and those of its parameters that are new and have random values:
    only what the checkpoint's own class does not have may be missing."""
    model_class, options = architecture.model_class, architecture.options
    try:
        model, found = model_class.from_pretrained(
            None,
            config=architecture.config,
            state_dict=state,
            dtype=architecture.dtype,
            device_map={"": device},
            output_loading_info=True,
            **options,
        )
    except NotImplementedError as error:
        # transformers gives weights that are missing random values, which 4-bit ones cannot have.
        if names := absent(checkpoint, architecture):
            raise incomplete(checkpoint, "has no", names, model_class) from error
        raise
    except RuntimeError as error:
        names = of_other_shape(checkpoint, architecture) if "ignore_mismatched_sizes" in str(error) else []
        if names:
            raise incomplete(checkpoint, "has another shape of", names, model_class) from error
        raise
    missing = set(map(str, found.get("missing_keys") or ()))
    if names := sorted(name for name in missing if not architecture.is_new(name)):
        raise incomplete(checkpoint, "has no", names, model_class)
    mismatched = {entry if isinstance(entry, str) else entry[0] for entry in found.get("mismatched_keys") or ()}
    if mismatched and not options.get("ignore_mismatched_sizes"):
        raise incomplete(checkpoint, "has another shape of", sorted(mismatched), model_class)
    finish(model, checkpoint.path)
    new = missing | mismatched
    return model, [parameter for name, parameter in model.named_parameters() if name in new]


def keep_layout(model: torch.nn.Module) -> None:
    """For weights that may be sharded, and so put back as they were loaded whenever they are gathered.

    On CPUs with bf16 instructions bitsandbytes repacks weight and statistics in place at the first forward pass in eval
    mode. The next gathering brings back the weight and not the statistics, and from then on the model is another one.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def absent(checkpoint: Checkpoint, architecture: Architecture) -> list[str]:
    """What the model needs and the checkpoint has not."""
    stored = {architecture.bare(name) for name in checkpoint}
    needed = (name for name in architecture.names if architecture.bare(name) not in stored)
    return sorted(name for name in needed if not architecture.is_new(name))


def of_other_shape(checkpoint: Checkpoint, architecture: Architecture) -> list[str]:
    stored = {architecture.bare(name): tensor.shape for name, tensor in checkpoint.items() if tensor.scheme is None}
    shapes = architecture.names.items()
    return sorted(name for name, shape in shapes if stored.get(architecture.bare(name), shape) != shape)


def incomplete(checkpoint: Checkpoint, what: str, names: list[str], model_class: type) -> CheckpointError:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return CheckpointError(f"{checkpoint.path}: {what} tensor '{names[0]}'{more}, which {model_class.__name__} needs")


def finish(model: Any, path: str) -> None:
    """What transformers does with the parts of a packed weight, and takes from the directory beside the weights."""
    for module in model.modules():
        if isinstance(module, Linear4bit) and isinstance(module.weight, Params4bit):
            module.weight.module, module.quant_state = module, module.weight.quant_state
    model.name_or_path = model.config.name_or_path = path
    if model.can_generate() and os.path.exists(os.path.join(path, "generation_config.json")):
        model.generation_config = GenerationConfig.from_pretrained(path, local_files_only=True)


@dataclass(frozen=True)
class Adapter:
    """What `peft.get_peft_model` is to be given, if anything."""

    config: PeftConfig | None
    autocast: bool

    def add(self, model: Any) -> Any:
        if self.config is None:
            return model
        from peft import get_peft_model

        return get_peft_model(model, self.config, autocast_adapter_dtype=self.autocast)
