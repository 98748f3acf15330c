"""One rank of a run that loads with a mesh and trains. The test starts one of these per rank.

Arguments: JSON {"checkpoints" (lists of one path per rank; each list is loaded, the first also trained), "mode":
"fsdp" | "fsdp1" | "ddp" | "zero2" | "single", "ranks", "mesh" (its shape, by default all ranks in a row), "out",
"steps", "fail", "labels" (loads with a new head for so many)}. RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are
torch's. A single process does what each of `ranks` would have done, one after the other. Writes OUT/rankN.json and,
from the first rank, the gradients of the first step and the adapter.
"""

import functools
import json
import os
import pathlib
import resource
import sys
import time

import torch
import torch.distributed as dist
import transformers
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig
from safetensors.torch import save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import nibble
from nibble import exchange, sharding

TARGETS = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
ROWS, LENGTH = 6, 24


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()


def memory() -> dict[str, int]:
    """Bytes of this process by kind, from the kernel."""
    lines = (line.split() for line in open("/proc/self/smaps_rollup") if line.endswith("kB\n"))
    return {fields[0].rstrip(":"): int(fields[1]) * 1024 for fields in lines}


def base(model) -> torch.nn.Module:
    return model.module if isinstance(model, (DistributedDataParallel, FullyShardedDataParallel)) else model


class Run:
    def __init__(self, settings: dict):
        self.settings = settings
        self.rank, self.ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.alone = settings["mode"] == "single"
        self.parts = range(settings["ranks"]) if self.alone else [self.rank]
        self.report: dict = {"losses": []}
        generator = torch.Generator().manual_seed(11)
        self.rows = torch.randint(3, 900, (ROWS, LENGTH), generator=generator)

    def load(self, checkpoints: list[str]):
        options = {"peft_config": TARGETS}
        if self.settings["mode"] == "fsdp1":
            # One dtype for everything that is flattened together.
            options |= {"device": "cpu", "autocast_adapter_dtype": False}
        elif not self.alone:
            shape = tuple(self.settings.get("mesh") or [self.ranks])
            mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicate", "shard")[-len(shape) :])
            options |= {"mesh": mesh, "shard": self.settings["mode"] == "fsdp"}
        else:
            options |= {"device": "cpu"}
        if labels := self.settings.get("labels"):
            options |= {"model_class": transformers.AutoModelForSequenceClassification, "num_labels": labels}
            options["peft_config"] = LoraConfig(r=8, target_modules="all-linear", task_type="SEQ_CLS")
        before, started = memory(), time.monotonic()
        model = nibble.load(checkpoints[self.rank], **options)
        after = memory()
        if self.settings.get("labels"):
            heads = ((name, value) for name, value in model.named_parameters() if ".score." in name)
            self.report["heads"] = {name: whole(value.detach()).tolist() for name, value in heads}
        self.report |= {
            "seconds": time.monotonic() - started, "bytes_read": base(model).nibble_bytes_read,
            "private": after["Private_Dirty"] - before["Private_Dirty"], "private_before": before["Private_Dirty"],
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before["Rss"],
        }
        return model

    def losses(self, model, backward: bool) -> list[float]:
        """Of each part's rows, which are every Nth."""
        result = []
        for part in self.parts:
            rows = self.rows[part :: self.settings["ranks"]]
            loss = model(input_ids=rows, labels=rows).loss
            if backward:
                loss.backward()
            result.append(loss.item())
        return result

    def train(self) -> None:
        # The same adapter in every run: what rank 0 draws, whatever the others do.
        torch.manual_seed(5 + self.rank)
        model = self.load(self.settings["checkpoints"][0])
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if self.settings["mode"] == "fsdp1":
            layer = type(model.get_base_model().model.layers[0])
            policy = functools.partial(transformer_auto_wrap_policy, transformer_layer_cls={layer})
            model = FullyShardedDataParallel(
                model, auto_wrap_policy=policy, use_orig_params=True, device_id=torch.device("cpu")
            )
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if self.settings["mode"] == "ddp":
            model = DistributedDataParallel(model)
            self.report["private_ddp"] = memory()["Private_Dirty"] - self.report["private_before"]
            self.report["adapter"] = sum(parameter.nbytes for parameter in trained)
        optimizer = torch.optim.AdamW(trained, lr=1e-3)
        for step in range(self.settings["steps"]):
            self.report["losses"].append(self.losses(model, backward=True))
            for parameter in trained if self.alone else ():
                # Afterwards, as ranks do: a third of the loss would be rounded on its way through bfloat16.
                parameter.grad /= len(self.parts)
            if step == 0 and self.settings["mode"] != "fsdp1":
                gradients = {
                    name: whole(parameter.grad)
                    for name, parameter in base(model).named_parameters()
                    if parameter.requires_grad
                }
            optimizer.step()
            optimizer.zero_grad()
        self.evaluate(model)
        if self.settings["mode"] == "fsdp1":
            return
        nibble.save_adapter(model, pathlib.Path(self.settings["out"]) / "adapter")
        if self.rank == 0:
            save_file(gradients, pathlib.Path(self.settings["out"]) / "gradients.safetensors")

    def train_with_deepspeed(self) -> None:
        """ZeRO-2: optimizer state and gradients of the adapter are sharded, the model is whole on every rank."""
        import deepspeed

        model = self.load(self.settings["checkpoints"][0])
        model.enable_input_require_grads()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        configuration = {
            "train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": True}, "zero_optimization": {"stage": 2},
            "zero_allow_untested_optimizer": True,
        }
        engine, *_ = deepspeed.initialize(
            model=model.train(), optimizer=torch.optim.AdamW(trained, lr=1e-3), config=configuration
        )
        self.report["private_ddp"] = memory()["Private_Dirty"] - self.report["private_before"]
        self.report["adapter"] = sum(parameter.nbytes for parameter in trained)
        for _ in range(self.settings["steps"]):
            rows = self.rows[self.rank :: self.ranks]
            loss = engine(input_ids=rows, labels=rows).loss
            self.report["losses"].append([loss.item()])
            engine.backward(loss)
            engine.step()

    def evaluate(self, model) -> None:
        """The loss in training mode, before and after a forward pass in eval mode without gradients."""
        base(model).disable_input_require_grads()
        for name, repack in (("guarded", False), ("repacked", True)):
            if repack:
                for module in model.modules():
                    if isinstance(module, Linear4bit):
                        module.support_avx512bf16_for_cpu = True
            # A pass that needs gradients never repacks, and another one between would hide what the first did.
            before = self.losses(model.train(), backward=False)
            with torch.no_grad():
                model.eval()(input_ids=self.rows, labels=self.rows)
            after = self.losses(model.train(), backward=False)
            self.report[name] = [before, after]
            if self.alone or self.settings["mode"] == "ddp":
                break


def fail_in_exchange(how: str) -> None:
    """Has this rank go away, or stop with an error of its own, at its second batch."""
    original, calls = exchange.Exchange.fill, []

    def fill(self, wanted):
        calls.append(1)
        if len(calls) == 2:
            if how == "killed":
                os._exit(9)
            raise MemoryError("made up")
        return original(self, wanted)

    exchange.Exchange.fill = fill


def describe(error: Exception) -> dict:
    return {"type": type(error).__name__, "text": str(error)}


def main() -> int:
    torch.set_num_threads(1)
    # Several batches of so small a model.
    sharding.BATCH = 8 << 20
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    run = Run(json.loads(sys.argv[1]))
    if not run.alone:
        dist.init_process_group("gloo")
    if run.settings.get("fail") and run.rank == run.ranks - 1:
        fail_in_exchange(run.settings["fail"])
    # Each rank draws its own random numbers.
    torch.manual_seed(5 + run.rank)
    errors = run.report["errors"] = []
    try:
        if run.settings["mode"] == "zero2":
            run.train_with_deepspeed()
        elif run.settings["steps"]:
            run.train()
    except Exception as error:
        errors.append(describe(error))
    for checkpoints in run.settings["checkpoints"] if not run.settings["steps"] else ():
        try:
            run.load(checkpoints)
        except Exception as error:
            errors.append(describe(error))
    code = 3 if errors else 0
    (pathlib.Path(run.settings["out"]) / f"rank{run.rank}.json").write_text(json.dumps(run.report))
    sys.stdout.flush()
    if not run.alone and code == 0:
        dist.destroy_process_group()
    return code


if __name__ == "__main__":
    # Without the interpreter's own end: a process group that lost a rank may wait in its destructor.
    os._exit(main())
