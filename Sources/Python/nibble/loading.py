"""`nibble.load`: into one process, or into each of a mesh its own part."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch

from . import guess
from .architecture import resolve
from .checkpoint import Checkpoint
from .errors import CheckpointError
from .model import Adapter, build, keep_layout, set_bytes_read, source

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
        # Not every build of torch can run in several processes.
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
