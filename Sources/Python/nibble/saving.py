"""`nibble.save_adapter`: a trained adapter, whole, from however many ranks hold parts of it."""

import os
from typing import Any

import torch.distributed as dist
from torch.distributed.tensor import DTensor

from .errors import CheckpointError


def save_adapter(model: Any, path: str | os.PathLike[str]) -> None:
    """Writes the adapter of a PEFT model as `save_pretrained` does. All ranks call it, the first one writes.

    Works for a model that was loaded with a mesh, for one inside DistributedDataParallel, and for a plain one.

    Raises CheckpointError on every rank if it could not be written, or if a tensor of it is empty.
    """
    model = getattr(model, "module", model) if not hasattr(model, "peft_config") else model
    if not hasattr(model, "peft_config"):
        raise CheckpointError(f"{type(model).__name__} has no adapter")
    # A parameter at a time: only the adapter is gathered, never the model.
    state = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            value = parameter.detach()
            state[name] = (value.full_tensor() if isinstance(value, DTensor) else value).cpu()
    error = None
    alone = not (dist.is_available() and dist.is_initialized())
    if alone or dist.get_rank() == 0:
        try:
            for name, value in state.items():
                if value.numel() == 0:
                    # What ZeRO-3 leaves where it holds the values elsewhere; PEFT would save it like that.
                    raise CheckpointError(f"{path}: '{name}' has no values")
            model.save_pretrained(path, state_dict=state)
        except Exception as caught:
            error = caught
    if not alone:
        messages = [None if error is None else str(error)]
        dist.broadcast_object_list(messages, src=0)
        if error is None and messages[0] is not None:
            raise CheckpointError(f"rank 0: {messages[0]}")
    if isinstance(error, CheckpointError):
        raise error
    if error is not None:
        raise CheckpointError(f"{path}: the adapter could not be written: {error}") from error
