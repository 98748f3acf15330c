"""The trainers' side of Nibble: checkpoints over memory maps, checked as they are read.

    checkpoint = nibble.open(directory)     # lazy tensors
    model = nibble.load(directory)          # a transformers model with bitsandbytes' 4-bit layers
    nibble.save_adapter(model, directory)   # what was trained, from all ranks

The last two need torch, transformers and bitsandbytes, adapters need peft.
"""

import os

from .checkpoint import Checkpoint
from .errors import CheckpointError, DigestError
from .lazy import LazyTensor

__version__ = "0.1.0"
__all__ = ["Checkpoint", "CheckpointError", "DigestError", "LazyTensor", "load", "open", "save_adapter"]


def open(path: str | os.PathLike, *, verify: bool | None = None) -> Checkpoint:
    """Opens a checkpoint directory, or one safetensors file, without reading its weights.

    verify: True demands digests, False ignores them; by default they are checked where there is a manifest, and a
    warning says where there is none.

    Raises CheckpointError for what is missing, malformed or inconsistent.
    """
    return Checkpoint(path, verify=verify)


def __getattr__(name: str):
    # Importing torch takes seconds, which a look into a file should not cost.
    if name == "load":
        from .model import load

        return load
    if name == "save_adapter":
        from .saving import save_adapter

        return save_adapter
    raise AttributeError(f"module 'nibble' has no attribute '{name}'")
