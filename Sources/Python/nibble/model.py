"""`nibble.load`: a transformers model, filled from the memory map of its checkpoint.

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

from . import guess
from .architecture import Architecture, resolve
from .checkpoint import Checkpoint
from .errors import CheckpointError
from .lazy import LazyTensor

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch.distributed.device_mesh import DeviceMesh


def load(
    path: str | os.PathLike[str],
    *,
    device: str | int | torch.device | None = None,
    mesh: DeviceMesh | None = None,
    shard: bool = True,
    peft_config: PeftConfig | None = None,
    autocast_adapter_dtype: bool = True,
    dtype: str | torch.dtype | None = "auto",
    verify: bool | None = None,
    model_class: type | None = None,
    **options: Any,
) -> Any:
    """The model in a checkpoint directory, ready to train or to answer.

    device: where it goes; by default the current GPU, or the CPU where there is none.
    mesh: a `torch.distributed.DeviceMesh`. With `shard`, every layer is wrapped by FSDP2's `fully_shard`, and each rank
        reads and checks only its own part of the weights. Without (for DDP and ZeRO-2) each rank holds the whole model,
        and checks its part of it.
    peft_config: the adapter to train (`peft.LoraConfig` …), added before layers are wrapped. The result is then what
        `peft.get_peft_model` gives; with a mesh, all ranks begin with rank 0's values of it.
    autocast_adapter_dtype: PEFT's: whether the adapter of a 16-bit model is trained in 32 bits.
    dtype: by default the one that the configuration names or, if it names none, that of the weights.
    verify: True demands digests, also that configuration, tokenizer and all other files are those that were written;
        False ignores them; by default those of weights are checked where the checkpoint has a manifest.
    model_class: by default the class that the configuration names. Of another (`AutoModelForSequenceClassification` …)
        a head that the checkpoint's own class does not have gets random values, the same on all ranks; transformers
        names it in its report.
    options: as for `from_pretrained`: settings of the configuration (`num_labels` …), `attn_implementation`,
        `trust_remote_code` …

    Raises CheckpointError for a checkpoint that is missing, malformed, changed meanwhile or not all of the model, and
    DigestError, which names file and tensor, before a damaged weight reaches the model. With a mesh all ranks raise.
    """
    path = os.fspath(path)
    if os.path.isfile(path):
        other = guess.of_file(path)
        raise CheckpointError(f"{path}: {other or 'a file; what is loaded is its directory, with config.json'}")
    device = torch.device(device) if device is not None else default_device()
    settings: dict[str, Any] = {"dtype": dtype, "model_class": model_class, "options": options}
    adapter = Adapter(peft_config, autocast_adapter_dtype)
    if mesh is not None:
        from .sharding import load_on_mesh

        return load_on_mesh(path, mesh, device, shard=shard, adapter=adapter, verify=verify, **settings)
    with Checkpoint(path, verify=verify) as checkpoint:
        # While transformers reads the configuration and builds the model.
        checkpoint.check_ahead()
        model, _ = build(checkpoint, resolve(checkpoint, **settings), source(checkpoint), device)
        checkpoint.check_unchanged()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            keep_layout(model)
        set_bytes_read(model, checkpoint)
    return adapter.add(model)


def set_bytes_read(model: Any, checkpoint: Checkpoint) -> None:
    model.nibble_bytes_read = checkpoint.bytes_read


def default_device() -> torch.device:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None or accelerator.type not in ("cuda", "xpu", "npu"):
        return torch.device("cpu")
    index = torch.accelerator.current_device_index()
    # Launchers name the process's GPU; libraries make it the current one only later.
    local = os.environ.get("LOCAL_RANK", "")
    if index == 0 and local.isdecimal() and int(local) < torch.accelerator.device_count():
        index = int(local)
    return torch.device(accelerator.type, index)


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
