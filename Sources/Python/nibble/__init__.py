"""The trainers' side of Nibble: checkpoints over memory maps, checked as they are read.

    checkpoint = nibble.open(directory)     # lazy tensors
    checkpoint[name].dequantize().numpy()   # the weight that 4-bit codes stand for
    model = nibble.load(directory)          # a transformers model with bitsandbytes' 4-bit layers
    nibble.save_adapter(model, directory)   # what was trained, from all ranks

The last two need torch, transformers, accelerate and bitsandbytes, adapters need peft. `python -m nibble.calibrate`
measures what the linear layers of a model are given; `--help` tells how.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .checkpoint import Checkpoint
from .dequantized import DequantizedTensor
from .errors import CheckpointError, DigestError, NoSuchTensorError, needs
from .lazy import LazyTensor

if TYPE_CHECKING:
    from .loading import load
    from .saving import save_adapter

__version__ = "0.1.0"
__all__ = [
    "Checkpoint", "CheckpointError", "DequantizedTensor", "DigestError", "LazyTensor", "NoSuchTensorError", "load",
    "open", "save_adapter",
]  # fmt: skip


def open(path: str | os.PathLike[str], *, verify: bool | None = None) -> Checkpoint:
    """Opens a checkpoint directory, or one safetensors file, without reading its weights.

    verify: True demands digests, and that all other files of the directory are those that were written with the
        weights; False ignores digests; by default those of weights are checked where there is a manifest, and a warning
        says where there is none or where config.json or the index was edited.

    Raises CheckpointError for what is missing, malformed or inconsistent, DigestError for what was edited or damaged.
    """
    return Checkpoint(path, verify=verify)


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds, which a look into a file should not cost.
    if name in ("load", "save_adapter"):
        instead = "nibble.open does without, and dequantize() gives 4-bit weights as NumPy arrays"
        with needs(f"nibble.{name}", "torch transformers accelerate bitsandbytes peft", instead):
            from .loading import load
            from .saving import save_adapter

        return load if name == "load" else save_adapter
    raise AttributeError(f"module 'nibble' has no attribute '{name}'")
