"""What a checkpoint is loaded as: its configuration, class and dtype, as `from_pretrained` would choose them, and which
parts of that class are new because the class that the checkpoint was saved from has none."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.models.auto.auto_factory import _get_model_class

from .checkpoint import INDEX, Checkpoint
from .container import read_json
from .errors import CheckpointError
from .lazy import TORCH

# What `from_pretrained` takes and has no meaning here, or another.
INSTEAD = {
    "config": "config.json beside the weights is read, and its settings can be given one by one (num_labels=3)",
    "device_map": "nibble.load puts the whole model on one device, device='cuda:0'; mesh= shares it among several, "
    "one process each",
    "gguf_file": "`nibble convert FILE.gguf -o DIRECTORY` makes of it a directory that can be loaded",
    "output_loading_info": "a model is whole, or an error is raised",
    "revision": "the directory of that revision is to be named",
    "state_dict": "weights are read from the directory; nibble.open gives them one by one",
    "subfolder": "the folder itself is to be named",
    "tp_plan": "mesh= shares the model among several processes",
}  # fmt: skip

# What is for the model alone: `from_pretrained` does not let these change the configuration.
NOT_CONFIGURATION = ("attn_implementation", "experts_implementation", "quantization_config")


@dataclass(frozen=True)
class Architecture:
    """What `from_pretrained` is called with."""

    model_class: Any
    config: Any
    dtype: Any
    options: dict[str, Any]
    # The checkpoint's own: its configuration, and the class that this names, if transformers has it.
    saved: Any
    own_class: Any

    def is_new(self, name: str) -> bool:
        """Whether a parameter is one that the checkpoint's own class has not, such as another task's head."""
        if self.own_class in (None, self.model_class) or not self._is_same_kind:
            return False
        bare = self.bare(name)
        return not any(own == bare or own.endswith(f".{bare}") for own in self._own_names)

    def bare(self, name: str) -> str:
        """As the class without a head has it."""
        return name.removeprefix(f"{self.model_class.base_model_prefix}.")

    @functools.cached_property
    def names(self) -> dict[str, tuple[int, ...]]:
        """What the model consists of, and the shapes of it."""
        return parts(self.model_class, self.config)

    @functools.cached_property
    def _own_names(self) -> dict[str, tuple[int, ...]]:
        # As large as the model: a layer more than the checkpoint has is no head.
        return parts(self.own_class, self.config if type(self.config) is type(self.saved) else self.saved)

    @property
    def _is_same_kind(self) -> bool:
        """Of a class of another kind of model, whatever the checkpoint lacks is missing."""
        inner = (getattr(self.saved, name, None) for name in getattr(self.saved, "sub_configs", ()))
        return any(isinstance(config, self.model_class.config_class) for config in (self.saved, *inner))


def resolve(
    checkpoint: Checkpoint, model_class: Any, dtype: str | torch.dtype | None, options: dict[str, Any]
) -> Architecture:
    for name, instead in INSTEAD.items():
        if name in options:
            raise TypeError(f"nibble.load takes no {name}: {instead}")
    if model_class is not None and not is_model_class(model_class):
        raise TypeError(f"model_class: a class of transformers' models is expected, not {model_class!r}")
    # Nothing is ever looked for elsewhere.
    options = {name: value for name, value in options.items() if name != "local_files_only"}
    old = options.pop("torch_dtype", None)
    if dtype is None or dtype == "auto":
        dtype = old if old is not None else "auto"
    trusted = bool(options.pop("trust_remote_code", False))
    for_model = {name: options.pop(name) for name in NOT_CONFIGURATION if name in options}
    saved, _ = configuration(checkpoint, AutoConfig, {}, trusted)
    own_class = class_of(saved)
    if model_class is None:
        model_class = own_class or transformers.AutoModelForCausalLM
    reader = getattr(model_class, "config_class", None) or AutoConfig
    config, unused = configuration(checkpoint, reader, options, trusted)
    model_class, config = concrete(checkpoint, model_class, config, trusted)
    if dtype == "auto" and getattr(config, "dtype", None) is None:
        dtype = stored_dtype(checkpoint)
    architecture = Architecture(model_class, config, dtype, unused | for_model, saved, own_class)
    leave_new_modules_out(architecture, checkpoint)
    return architecture


def is_model_class(value: object) -> bool:
    return isinstance(value, type) and (issubclass(value, PreTrainedModel) or hasattr(value, "_model_mapping"))


def leave_new_modules_out(architecture: Architecture, checkpoint: Checkpoint) -> None:
    """New modules of a 4-bit model stay in 16 bits, as they do where bitsandbytes itself chooses: they have no codes,
    and could not be trained."""
    settings = getattr(architecture.config, "quantization_config", None)
    skipped = settings.get("llm_int8_skip_modules") if isinstance(settings, dict) else None
    if architecture.own_class is architecture.model_class or not isinstance(skipped, list):
        return
    there = {architecture.bare(name) for name in checkpoint}
    for name in architecture.names:
        module = name.removesuffix(".weight")
        if module != name and module not in skipped and architecture.bare(name) not in there:
            if architecture.is_new(name):
                skipped.append(module)


def configuration(checkpoint: Checkpoint, reader: Any, options: dict[str, Any], trusted: bool) -> tuple[Any, dict]:
    """The configuration, changed by those of the options that are settings of it, and the other options."""
    more = {"trust_remote_code": trusted} if reader is AutoConfig else {}
    try:
        config, unused = reader.from_pretrained(
            checkpoint.path, local_files_only=True, return_unused_kwargs=True, **more, **options
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{checkpoint.path}: config.json: {error}") from error
    return config, {name: value for name, value in unused.items() if name in options}


def class_of(config: Any) -> Any:
    """The class that wrote the configuration, if transformers has it."""
    names = getattr(config, "architectures", None) or ()
    return next((getattr(transformers, name) for name in names if hasattr(transformers, name)), None)


def concrete(checkpoint: Checkpoint, model_class: Any, config: Any, trusted: bool) -> tuple[Any, Any]:
    """The class that an Auto class stands for, which would look for it in a directory, and its part of the
    configuration."""
    mapping = getattr(model_class, "_model_mapping", None)
    if mapping is None:
        return model_class, config
    reference = (getattr(config, "auto_map", None) or {}).get(model_class.__name__)
    if trusted and reference is not None:
        return get_class_from_dynamic_module(reference, checkpoint.path), config
    if type(config) not in mapping:
        raise CheckpointError(
            f"{checkpoint.path}: config.json: {model_class.__name__} knows no class for a model of type "
            f"{config.model_type}; model_class= names another"
        )
    found = _get_model_class(config, mapping)
    text = getattr(config, "sub_configs", {}).get("text_config")
    if text is not None and found.config_class == text:
        whole, config = config, config.get_text_config()
        if getattr(whole, "quantization_config", None) is not None:
            config.quantization_config = whole.quantization_config
    return found, config


def stored_dtype(checkpoint: Checkpoint) -> torch.dtype:
    """For a configuration that names none: what the index names, or the first floating dtype in the first file, by
    the names of its tensors, which is where transformers looks."""
    index = os.path.join(checkpoint.path, INDEX)
    if os.path.exists(index):
        with open(index, "rb") as file:
            metadata = read_json(file.read(), index).get("metadata")
        named = metadata.get("dtype") if isinstance(metadata, dict) else None
        if isinstance(named, str) and named in TORCH.values():
            return getattr(torch, named)
    first = checkpoint.files[0]
    stored = (tensor.dtype for _, tensor in sorted(checkpoint.items()) if tensor.file == first)
    found = [getattr(torch, TORCH[dtype]) for dtype in stored if hasattr(torch, TORCH.get(dtype, ""))]
    # A whole model cannot have a dtype of 8 bits.
    floating = (dtype for dtype in found if dtype.is_floating_point and dtype.itemsize > 1)
    return next(floating, found[0] if found else torch.float32)


def parts(model_class: Any, config: Any) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in model_class(config).state_dict().items()}
