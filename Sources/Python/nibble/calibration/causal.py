"""The causal language model that a checkpoint is of, built without weights."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from accelerate import init_empty_weights

from ..architecture import Architecture, resolve
from ..checkpoint import Checkpoint
from ..errors import printable
from .errors import UNSUPPORTED, Refusal


def causal(checkpoint: Checkpoint) -> Architecture:
    architecture = resolve(checkpoint, None, None, {})
    settings = getattr(architecture.config, "quantization_config", None)
    if settings is not None:
        method = settings.get("quant_method") if isinstance(settings, dict) else getattr(settings, "quant_method", None)
        four = settings.get("load_in_4bit") if isinstance(settings, dict) else getattr(settings, "load_in_4bit", False)
        method = str(getattr(method, "value", method))
        if not method.startswith("bitsandbytes") or not four:
            raise Refusal(
                UNSUPPORTED,
                f"{checkpoint.path}: quantized by {printable(method)}; `nibble convert` makes a 16-bit model of it")
        for config in (architecture.config, architecture.config.get_text_config()):
            if hasattr(config, "quantization_config"):
                del config.quantization_config
    known = {value for values in transformers.MODEL_FOR_CAUSAL_LM_MAPPING.values()
             for value in (values if isinstance(values, tuple) else (values,))}  # fmt: skip
    model_class = architecture.model_class
    if model_class not in known or getattr(architecture.config, "is_encoder_decoder", False):
        raise Refusal(UNSUPPORTED, f"{checkpoint.path}: {model_class.__name__} is no causal language model")
    return architecture


def build(architecture: Architecture, dtype: torch.dtype) -> Any:
    config = architecture.config
    config.use_cache = False
    # Experts one after another: each then multiplies the tokens that are its own, and no others.
    experts = {"experts_implementation": "eager"} if is_recent() else {}
    with init_empty_weights(include_buffers=False):
        return architecture.model_class._from_config(config, dtype=dtype, **experts)


def is_recent() -> bool:
    return int(transformers.__version__.split(".")[0]) >= 5


def layers_of(model: Any, config: Any, class_name: str) -> tuple[str, torch.nn.ModuleList]:
    """The one list of as many modules as the configuration counts, not within a layer or a tower beside."""
    count = getattr(config, "num_hidden_layers", None)
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    decoder = decoder if decoder is not None else model
    start = next(name for name, module in model.named_modules() if module is decoder)
    found: list[tuple[str, torch.nn.ModuleList]] = []
    for name, module in decoder.named_modules(prefix=start):
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            if not any(name.startswith(f"{outer}.") for outer, _ in found):
                found.append((name, module))
    if len(found) != 1 or getattr(config, "num_kv_shared_layers", 0):
        what = "shares keys and values among its layers" if len(found) == 1 else "has no list of layers that is known"
        raise Refusal(UNSUPPORTED, f"{class_name} {what}: it cannot be run layer by layer")
    return found[0]


def wide(model: Any, dtype: torch.dtype) -> Any:
    """What matches the parameters that transformers keeps in 32 bits."""
    plan = model._get_dtype_plan(dtype) if hasattr(model, "_get_dtype_plan") else {}
    if not plan:
        return None
    from transformers.core_model_loading import build_glob_alternation

    return build_glob_alternation(list(plan))[0]


