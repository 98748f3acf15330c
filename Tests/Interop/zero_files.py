"""Run by torchrun: a checkpoint of DeepSpeed, what its own zero_to_fp32.py makes of it, and what was in the model.

    torchrun --nproc-per-node N zero_files.py KIND OUT

KIND is one of KINDS, or lora, see there. Leaves OUT/checkpoint; OUT/joined/pytorch_model.bin, where zero_to_fp32.py
can read it; OUT/expected.pt, a dictionary of the tensors as DeepSpeed itself gives them: parameters in full precision,
what is not trained and buffers as they are in the module; OUT/universal of the kinds that ds_to_universal.py reads. Of
"robin" there is neither: of parameters in another order, DeepSpeed 0.19 gives some under the names of others there, though not in
the checkpoint itself.
"""

import os
import pathlib
import subprocess
import sys

os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(pathlib.Path(sys.prefix) / "torch-extensions"))
os.environ["PATH"] = f"{pathlib.Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"

import deepspeed  # noqa: E402  its accelerator is chosen by the environment
import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from deepspeed.utils import safe_get_full_fp32_param  # noqa: E402

KINDS = {
    "stage0": {"stage": 0},
    "stage1": {"stage": 1},
    # The optimizer for bfloat16 that keeps gradients in full precision, which zero_to_fp32.py does not read.
    "bf16": {"stage": 1},
    "stage2": {"stage": 2},
    "robin": {"stage": 2, "round_robin_gradients": True},
    # Several vectors in each rank, and parameters that lie in two of them.
    "stage3": {"stage": 3, "sub_group_size": 5000, "stage3_param_persistence_threshold": 10},
}


class Model(torch.nn.Module):
    """Sizes that no number of ranks divides, two tied pairs of which one is not trained, buffers of two types."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(101, 24)
        self.frozen = torch.nn.Linear(24, 7)
        self.first = torch.nn.Linear(24, 5)
        self.second = torch.nn.Linear(5, 24, bias=False)
        self.wide = torch.nn.Linear(24, 3001)
        self.narrow = torch.nn.Linear(3001, 24)
        self.scale = torch.nn.Parameter(torch.tensor([1.5]))
        self.head = torch.nn.Linear(24, 101, bias=False)
        self.again = torch.nn.Linear(24, 7)
        self.register_buffer("table", torch.randn(3, 5))
        self.register_buffer("count", torch.arange(7))
        self.register_buffer("passing", torch.zeros(2), persistent=False)
        self.head.weight = self.embedding.weight
        self.again.weight = self.frozen.weight
        for module in (self.frozen, self.again):
            module.requires_grad_(False)

    def forward(self, tokens):
        hidden = self.embedding(tokens)
        hidden = hidden + self.second(torch.tanh(self.first(hidden))) * self.scale
        hidden = hidden + self.narrow(torch.tanh(self.wide(hidden)))
        extra = self.frozen(hidden).sum() + self.again(hidden).sum()
        return self.head(hidden).float().log_softmax(-1)[..., 0].mean() + 1e-3 * extra.float()


def groups(model: torch.nn.Module) -> list[dict]:
    """Matrices decay and vectors do not, as trainers have it."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [one for one in trained if one.dim() > 1], "weight_decay": 0.1},
        {"params": [one for one in trained if one.dim() <= 1], "weight_decay": 0.0},
    ]


def expected(engine, stage: int) -> dict[str, torch.Tensor]:
    """Asked of DeepSpeed on every rank."""
    found = {}
    for name, parameter in engine.module.named_parameters(remove_duplicate=False):
        if parameter.requires_grad and stage:
            value = safe_get_full_fp32_param(parameter)
        elif stage == 3:
            with deepspeed.zero.GatheredParameters([parameter]):
                value = parameter.detach().clone()
        else:
            value = parameter.detach()
        found[name] = value.detach().cpu().clone().reshape(getattr(parameter, "ds_shape", parameter.shape))
    for name, buffer in engine.module.named_buffers():
        if name != "passing":
            found[name] = buffer.cpu().clone()
    return found


def lora(out: pathlib.Path) -> None:
    """A base with an adapter, as PEFT and DeepSpeed save it after two steps."""
    import peft
    import transformers

    torch.set_num_threads(1)
    torch.manual_seed(3)
    base = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=61, tie_word_embeddings=False, architectures=["LlamaForCausalLM"])).bfloat16()
    if os.environ["RANK"] == "0":
        base.save_pretrained(out / "base")
    settings = peft.LoraConfig(
        r=4, target_modules=["q_proj", "down_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, settings)
    configuration = {
        "train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": True}, "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False, "zero_optimization": {"stage": 2},
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=torch.optim.AdamW(trained, lr=1e-2), config=configuration)
    tokens = torch.arange(12).reshape(2, 6)
    for step in range(2):
        engine.backward(engine(input_ids=tokens + step + dist.get_rank(), labels=tokens).loss)
        engine.step()
    engine.save_checkpoint(str(out / "checkpoint"), tag="global_step2")
    if dist.get_rank() == 0:
        model.save_pretrained(out / "adapter")
    dist.barrier()
    dist.destroy_process_group()


def main(kind: str, out: pathlib.Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(3)
    stage = KINDS[kind]["stage"]
    configuration = {
        "train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": True}, "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False, "zero_optimization": KINDS[kind],
    }
    if kind == "bf16":
        configuration["data_types"] = {"grad_accum_dtype": "fp32"}
    model = Model()
    optimizer = torch.optim.AdamW(groups(model), lr=1e-2)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=configuration)
    for step in range(2):
        engine.backward(engine(torch.arange(12).reshape(2, 6) + step + dist.get_rank()))
        engine.step()
    engine.save_checkpoint(str(out / "checkpoint"), tag="global_step2")
    tensors = expected(engine, stage)
    if dist.get_rank() == 0:
        if kind != "robin":
            torch.save(tensors, out / "expected.pt")
        join(kind, out)
    dist.barrier()
    dist.destroy_process_group()


def join(kind: str, out: pathlib.Path) -> None:
    """DeepSpeed's own scripts, each in a process of its own."""
    alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    checkpoint = out / "checkpoint"
    if kind not in ("stage0", "bf16"):
        script = checkpoint / "zero_to_fp32.py"
        subprocess.run([sys.executable, str(script), str(checkpoint), str(out / "joined")], env=alone, check=True)
    if kind in ("stage1", "stage2", "stage3"):
        folders = ["--input_folder", str(checkpoint / "global_step2"), "--output_folder", str(out / "universal" / "u2")]
        more = ["--inject_missing_state", "--num_extract_workers", "1", "--num_merge_workers", "1"]
        module = ["-m", "deepspeed.checkpoint.ds_to_universal"]
        subprocess.run([sys.executable, *module, *folders, *more], env=alone, check=True)


if __name__ == "__main__":
    if sys.argv[1] == "lora":
        lora(pathlib.Path(sys.argv[2]))
    else:
        main(sys.argv[1], pathlib.Path(sys.argv[2]))
