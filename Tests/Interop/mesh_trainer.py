"""transformers' Trainer on a model that `nibble.load` sharded, or on one process. One of these per rank.

Arguments: CHECKPOINT OUT. Prints the losses as JSON on the first rank and leaves the adapter in OUT/adapter (saved by
`nibble.save_adapter`) and, where it is sharded, in OUT/checkpoint-N (saved by the Trainer).
"""

import json
import os
import pathlib
import sys

import accelerate.state
import torch
import transformers
from accelerate.utils import DistributedType
from peft import LoraConfig
from torch.distributed.device_mesh import init_device_mesh
from transformers import Trainer, TrainingArguments

import nibble

STEPS, ROWS = 4, 6


def let_processors_shard() -> None:
    """accelerate knows FSDP on accelerators only; for the rest of it the device makes no difference."""
    original = accelerate.state.AcceleratorState.__init__

    def initialize(self, *arguments, **named):
        original(self, *arguments, **named)
        plugin = named.get("fsdp_plugin") or self._shared_state.get("fsdp_plugin")
        if plugin is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, plugin

    accelerate.state.AcceleratorState.__init__ = initialize


def main(checkpoint: str, out: pathlib.Path) -> None:
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    ranks, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    options = {}
    if ranks > 1:
        let_processors_shard()
        # The layers are wrapped already.
        options = {
            "fsdp": "full_shard",
            "fsdp_config": {"auto_wrap_policy": "NO_WRAP", "state_dict_type": "FULL_STATE_DICT"},
        }
    settings = TrainingArguments(
        output_dir=str(out), use_cpu=True, max_steps=STEPS, per_device_train_batch_size=ROWS // ranks,
        learning_rate=1e-3, lr_scheduler_type="constant", logging_steps=1, report_to=[], disable_tqdm=True,
        gradient_checkpointing=True, save_strategy="steps", save_steps=STEPS, **options,
    )
    torch.manual_seed(rank)
    adapter = LoraConfig(r=64, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    if ranks > 1:
        model = nibble.load(checkpoint, mesh=init_device_mesh("cpu", (ranks,)), peft_config=adapter)
    else:
        model = nibble.load(checkpoint, device="cpu", peft_config=adapter)
    rows = torch.randint(3, 900, (STEPS * ROWS, 32), generator=torch.Generator().manual_seed(1))
    model.enable_input_require_grads()
    trainer = Trainer(model=model, args=settings, train_dataset=[{"input_ids": row, "labels": row} for row in rows])
    trainer.train()
    nibble.save_adapter(trainer.model, out / "adapter")
    if rank == 0:
        print(json.dumps([entry["loss"] for entry in trainer.state.log_history if "loss" in entry]))


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
