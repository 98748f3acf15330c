"""The trainers' side of Nibble: checkpoints over memory maps, checked as they are read.

    checkpoint = nibble.open(directory)     # lazy tensors
    model = nibble.load(directory)          # a transformers model with bitsandbytes' 4-bit layers

Only `load` needs torch, transformers and bitsandbytes.
"""

import os

from .checkpoint import Checkpoint, LazyTensor
from .errors import CheckpointError, DigestError

__version__ = "0.1.0"
__all__ = ["Checkpoint", "CheckpointError", "DigestError", "LazyTensor", "load", "open"]


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
    raise AttributeError(f"module 'nibble' has no attribute '{name}'")
