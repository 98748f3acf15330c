"""`nibble.load`: a transformers model, filled from the memory map of its checkpoint.

transformers builds the model (on the meta device), replaces its linear layers by bitsandbytes' and decides which tensor
goes where, by its own rules; only what it would read from files comes from here instead: tensors on the map, checked
when they are first touched. So the result is that of `from_pretrained`, whatever the architecture, and nothing is
copied on its way to the device: on the CPU the weights are the file's own pages, shared by every process that loads it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import transformers
from bitsandbytes.nn import Linear4bit, Params4bit
from transformers import AutoConfig, GenerationConfig

from .checkpoint import Checkpoint
from .errors import CheckpointError


def load(
    path: str | os.PathLike,
    *,
    device: str | int | torch.device | None = None,
    mesh=None,
    shard: bool = True,
    peft_config=None,
    autocast_adapter_dtype: bool = True,
    dtype: str | torch.dtype = "auto",
    verify: bool | None = None,
    model_class: type | None = None,
    **options,
):
    """The model in a checkpoint directory, ready to train or to answer.

    device: where it goes; by default the current GPU, or the CPU where there is none.
    mesh: a `torch.distributed.DeviceMesh`. With `shard`, every layer is wrapped by FSDP2's `fully_shard`, and each rank
        reads and checks only its own part of the weights. Without (for DDP and ZeRO-2) each rank holds the whole model,
        and checks its part of it.
    peft_config: the adapter to train (`peft.LoraConfig` …), added before layers are wrapped. The result is then what
        `peft.get_peft_model` gives; with a mesh, all ranks begin with rank 0's values of it.
    autocast_adapter_dtype: PEFT's: whether the adapter of a 16-bit model is trained in 32 bits.
    verify: True demands digests, False ignores them; by default they are checked where the checkpoint has a manifest.
    model_class: by default the class that the configuration names.
    options: passed on to `from_pretrained` (`attn_implementation`, `trust_remote_code` …).

    Raises CheckpointError for a checkpoint that is missing, malformed, changed meanwhile or not all of the model, and
    DigestError, which names file and tensor, before a damaged weight reaches the model. With a mesh all ranks raise.
    """
    path = os.fspath(path)
    if os.path.isfile(path):
        raise CheckpointError(f"{path}: a file; what is loaded is its directory, with config.json")
    device = torch.device(device) if device is not None else default_device()
    settings = {"dtype": dtype, "model_class": model_class, "options": options}
    adapter = Adapter(peft_config, autocast_adapter_dtype)
    if mesh is not None:
        from .sharding import load_on_mesh

        return load_on_mesh(path, mesh, device, shard=shard, adapter=adapter, verify=verify, **settings)
    with Checkpoint(path, verify=verify) as checkpoint:
        # While transformers reads the configuration and builds the model.
        checkpoint.check_ahead()
        model = build(checkpoint, source(checkpoint), device, **settings)
        checkpoint.check_unchanged()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            keep_layout(model)
        model.nibble_bytes_read = checkpoint.bytes_read
    return adapter.add(model)


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

    def __init__(self, weight, parts: dict):
        self._weight, self._parts = weight, parts
        self.shape = weight.shape

    def get_shape(self) -> list[int]:
        return list(self.shape)

    def get_dtype(self) -> str:
        # Whatever the storage type: packed codes are never cast.
        return "U8"

    def __getitem__(self, index) -> "FourBitWeight":
        return self

    def to(self, device=None, dtype=None) -> Params4bit:
        """The parameter, made where it is to be."""
        parts = {name: part[...] for name, part in self._parts.items()}
        return Params4bit.from_prequantized(self._weight[...], parts, device=device)


def source(tensors: Mapping) -> dict:
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


def class_of(config) -> type:
    """The class that wrote the configuration, or the causal model of its type."""
    for name in getattr(config, "architectures", None) or ():
        if hasattr(transformers, name):
            return getattr(transformers, name)
    return transformers.AutoModelForCausalLM


def configuration(checkpoint: Checkpoint, options: dict):
    try:
        return AutoConfig.from_pretrained(
            checkpoint.path, local_files_only=True, trust_remote_code=options.get("trust_remote_code", False)
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{checkpoint.path}: config.json: {error}") from error


def build(checkpoint: Checkpoint, state: dict, device: torch.device, *, dtype, model_class, options):
    """The model, its weights taken from `state`; complete, or an error."""
    config = configuration(checkpoint, options)
    model_class = model_class or class_of(config)
    try:
        model, found = model_class.from_pretrained(
            None,
            config=config,
            state_dict=state,
            dtype=dtype,
            device_map={"": device},
            output_loading_info=True,
            **options,
        )
    except NotImplementedError as error:
        # transformers gives weights that are missing random values, which 4-bit ones cannot have.
        if names := missing(checkpoint, model_class, config):
            raise incomplete(checkpoint, "has no", names, model_class) from error
        raise
    for key, what in (("missing_keys", "has no"), ("mismatched_keys", "has another shape of")):
        if names := sorted(map(str, found.get(key) or ())):
            raise incomplete(checkpoint, what, names, model_class)
    finish(model, checkpoint.path)
    return model


def keep_layout(model) -> None:
    """For weights that may be sharded, and so put back as they were loaded whenever they are gathered.

    On CPUs with bf16 instructions bitsandbytes repacks weight and statistics in place at the first forward pass in eval
    mode. The next gathering brings back the weight and not the statistics, and from then on the model is another one.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def missing(checkpoint: Checkpoint, model_class, config) -> list[str]:
    with torch.device("meta"):
        return sorted(model_class(config).state_dict().keys() - checkpoint.keys())


def incomplete(checkpoint: Checkpoint, what: str, names: list[str], model_class) -> CheckpointError:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return CheckpointError(f"{checkpoint.path}: {what} tensor '{names[0]}'{more}, which {model_class.__name__} needs")


def finish(model, path: str) -> None:
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

    config: object | None
    autocast: bool

    def add(self, model):
        if self.config is None:
            return model
        from peft import get_peft_model

        return get_peft_model(model, self.config, autocast_adapter_dtype=self.autocast)
