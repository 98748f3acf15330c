"""QLoRA training with the stock trainers on Nibble's shards: the losses are those of training on bitsandbytes' own
quantization, several processes train the adapter that one does, and what a trainer saves merges.

The base is fixtures/sql-llama with its head divided by 4, exactly. As it is the fixture is sure of everything, right or
wrong: in the dialect it loses 8 nats a token, from logits around 20, which bf16 has in steps of 1/8, and one ulp of the
offset of each absmax, which torch's mean does not define (see oracle.py), moves the loss of a step by 4e-3. Divided, up
to 4 ulps move it by 1e-3 at most, absmax in 32 bits by 2.5e-3, one layer left in 16 bits by 2.7e-3, FP4 by 3e-2.
"""

import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import adapters
import environment
import train
from tool import ROOT

pytestmark = pytest.mark.kernels

HERE = pathlib.Path(__file__).resolve().parent
BIN = pathlib.Path(sys.prefix) / "bin"
OVERLAY = pathlib.Path(sys.prefix) / "transformers-4"
OPERATORS = pathlib.Path(sys.prefix) / "torch-extensions"

# In nats per token, at every optimizer step.
SAME_LOSS = 2e-3

# Of float32 adapters, relative to what training changed. The gradients of three processes are those of one but for
# rounding: each loss is taken three times and the mean of three gradients, so every value is off by some 10 units of
# 2^-24 of its typical size. Adam divides an element by its own size, so it moves by another amount where it is itself
# as small as that. Of elements with density 1 at zero a share of 10 * 2^-24 is, and moves by up to 2 instead of 0:
# sqrt(4 * 10 * 2^-24) = 1.5e-3.
SAME_ADAPTER = 1.5e-3

# In nats per token, of the loss over held-out pairs, all in float32.
SAME_MERGED = 1e-5
# Of what the adapter gains: how much of it may go with the rounding of the merged weights to bf16. After five steps the
# delta is 1/400 of a weight, less than half a step of bf16, and in half of the weights nothing of it is left. What is
# left of a layer's delta, projected on it, is 3/4 of it at the least.
LOST_IN_BF16 = 0.25

LAYERS, LINEAR = 4, 7
# What starts the program of each trainer, and what its report must say: processes, wrapper of the model.
TRAINERS = {
    "trainer": (1, "PeftModelForCausalLM"),
    "sft": (1, "PeftModelForCausalLM"),
    "zero2": (2, "DeepSpeedEngine"),
    "db-gpt-hub": (1, "PeftModelForCausalLM"),
}
BASES = ("nibble", "bitsandbytes", "fp4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, nibble):
    """The 16-bit base, and Nibble's quantization of it in several shards, for two dtypes of computation."""
    folder = tmp_path_factory.mktemp("training")
    source = ROOT / "fixtures" / "sql-llama"
    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    with torch.no_grad():
        model.lm_head.weight.div_(4)
    model.save_pretrained(folder / "source")
    # As they are: transformers 4 cannot load a tokenizer that transformers 5 has saved.
    for file in [*source.glob("tokenizer*"), source / "special_tokens_map.json"]:
        shutil.copy(file, folder / "source")
    nibble.quantize(folder / "source", folder / "nf4", "--max-shard-size", "1MB")
    nibble.quantize(folder / "source", folder / "nf4-float32", "--max-shard-size", "1MB", "--compute-dtype", "float32")
    assert len(list((folder / "nf4").glob("model-*.safetensors"))) > 1
    # The programs have the cores: a second thread here would wait for one at every layer.
    with adapters.one_thread():
        yield folder


def start(command, **variables) -> None:
    """One program, to its end. It ends itself by train.LIMIT, so this limit is for what starts it."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    alone = {"OMP_NUM_THREADS": "1", "PATH": path, "CUDA_VISIBLE_DEVICES": ""}
    finished = subprocess.run(
        [str(word) for word in command], env=os.environ | alone | variables,
        capture_output=True, text=True, timeout=train.LIMIT + 20)
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-8000:]


def compile_operators() -> None:
    """DeepSpeed's for the CPU, once for each environment. torch marks a compilation by a file that one which was killed
    leaves behind, and waits for it for ever."""
    OPERATORS.mkdir(exist_ok=True)
    with environment.locked(OPERATORS / "building"):
        for left in OPERATORS.glob("*/lock"):
            left.unlink()
        code = ("from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder\n"
                "builder = ShareMemCommBuilder()\n"
                "builder.is_compatible() and builder.load()")
        start([sys.executable, "-c", code], DS_ACCELERATOR="cpu", TORCH_EXTENSIONS_DIR=str(OPERATORS))


def zero2_configuration(path: pathlib.Path) -> pathlib.Path:
    """What `accelerate config` would write."""
    path.write_text(json.dumps({
        "compute_environment": "LOCAL_MACHINE", "distributed_type": "DEEPSPEED", "num_machines": 1, "num_processes": 2,
        "machine_rank": 0, "main_process_port": 0, "mixed_precision": "bf16", "use_cpu": False,
        "deepspeed_config": {
            "zero_stage": 2, "gradient_accumulation_steps": 8, "gradient_clipping": 1.0,
            "offload_optimizer_device": "none", "offload_param_device": "none",
        },
    }))
    return path


def program(folder: pathlib.Path, name: str) -> None:
    """Everything that one trainer trains: on each of BASES, of which FP4 only shows what the comparison can see."""
    script = HERE / "train.py"

    def run(base, **more):
        model = "nf4" if base == "nibble" else "source"
        how = {"nibble": {}, "bitsandbytes": {"quantize": "nf4"}, "fp4": {"quantize": "fp4", "steps": 1}}[base]
        return json.dumps({"model": str(folder / model), "output": str(folder / name / base)} | how | more)

    def float32(output, accumulation):
        return json.dumps({"model": str(folder / "nf4-float32"), "output": str(folder / name / output),
                           "accumulation": accumulation, "bf16": False})

    if name == "zero2":
        compile_operators()
        configuration = zero2_configuration(folder / "zero2.json")
        start([sys.executable, "-m", "accelerate.commands.launch", "--config_file", configuration, script, "trainer",
               *(run(base, accumulation=8) for base in BASES)],
              DS_ACCELERATOR="cpu", TORCH_EXTENSIONS_DIR=str(OPERATORS))
    elif name == "three":
        start([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 3, script, "trainer",
               float32("ddp", 6)])
    elif name == "one":
        start([sys.executable, script, "trainer", float32("all", 18), float32("lost", 17)])
    else:
        overlay = {"PYTHONPATH": str(OVERLAY)} if name == "db-gpt-hub" else {}
        start([sys.executable, script, name, *map(run, BASES)], **overlay)


@pytest.fixture(scope="module")
def trained(folder):
    """Waits for a program, by name, and gives its folder. Two at a time run from the start."""
    pool = concurrent.futures.ThreadPoolExecutor(2)
    names = "trainer", "sft", "zero2", "db-gpt-hub", "three", "one"
    running = {name: pool.submit(program, folder, name) for name in names}

    def wait(name):
        running[name].result()
        return folder / name

    yield wait
    pool.shutdown(cancel_futures=True)


def report(path: pathlib.Path) -> dict:
    return json.loads((path / "report.json").read_text())


def adapter(path: pathlib.Path) -> dict[str, torch.Tensor]:
    return {name: tensor.double() for name, tensor in load_file(path / "adapter_model.safetensors").items()}


def distance(left: list[float], right: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(left, right))


@pytest.mark.parametrize("name", TRAINERS)
def test_losses_are_those_of_bitsandbytes(name, trained, capsys):
    reports = {base: report(trained(name) / base) for base in BASES}
    mine, theirs, fp4 = (reports[base]["losses"] for base in BASES)
    with capsys.disabled():
        print(f"\n  {name:10} losses {mine[0]:.4f} … {mine[-1]:.4f}, NF4 by bitsandbytes within"
              f" {distance(mine, theirs):.1e}, FP4 within {distance(fp4, theirs):.1e}", end="")
    assert len(mine) == len(theirs) == train.DEFAULTS["steps"]
    assert distance(mine, theirs) <= SAME_LOSS
    assert distance(fp4, theirs) > 5 * SAME_LOSS
    for losses in mine, theirs:
        assert all(before - after > SAME_LOSS for before, after in zip(losses, losses[1:])), losses
    for base in BASES:
        facts = reports[base]
        assert facts["kinds"] == ["fp4" if base == "fp4" else "nf4"]
        assert facts["quantized"] == LAYERS * LINEAR
        assert facts["checkpointing"] and facts["base_unchanged"]
        assert (facts["processes"], facts["wrapped"]) == TRAINERS[name]
        assert facts["transformers"].startswith("4.57." if name == "db-gpt-hub" else "5.")
    assert reports["fp4"]["base"] not in (reports["nibble"]["base"], reports["bitsandbytes"]["base"])


@pytest.mark.parametrize("name", TRAINERS)
def test_every_layer_is_trained(name, trained):
    saved = trained(name) / "nibble"
    before, after = adapter(saved / "initial"), adapter(saved)
    assert before.keys() == after.keys()
    assert len(after) == 2 * LAYERS * (2 if name == "db-gpt-hub" else LINEAR)
    for key in after:
        assert torch.isfinite(after[key]).all(), key
        assert min(after[key].shape) == train.RANK, key
        assert not torch.equal(after[key], before[key]), key
        assert "lora_A" in key or not before[key].any(), key


@pytest.mark.parametrize("name", TRAINERS)
def test_merged_is_base_and_adapter(name, trained, folder, nibble, tmp_path, capsys):
    """Over held-out pairs, the merge of what the trainer saved has the loss of base and adapter apart. Exactly in
    float32, where the base is as transformers dequantizes it; in bf16 as far as its rounding goes."""
    saved = trained(name) / "nibble"
    nibble.json("merge", folder / "nf4", saved, "-o", tmp_path / "merged")
    nibble.json("merge", folder / "nf4", saved, "-o", tmp_path / "merged32", "--rounding", "once", "--dtype", "float32")
    nibble.verify(tmp_path / "merged")
    make = train.fixture_module()
    tokenizer, pairs = AutoTokenizer.from_pretrained(folder / "nf4"), make.heldout(60)

    def load(path):
        return AutoModelForCausalLM.from_pretrained(path, dtype="auto")

    def loss(model):
        return make.base.held_out_loss(model.eval(), tokenizer, pairs)

    bare = loss(load(folder / "nf4"))
    apart, merged = loss(PeftModel.from_pretrained(load(folder / "nf4"), saved)), loss(load(tmp_path / "merged"))
    dequantized = load(folder / "nf4").dequantize().float()
    apart32, merged32 = loss(PeftModel.from_pretrained(dequantized, saved)), loss(load(tmp_path / "merged32").float())
    with capsys.disabled():
        print(f"\n  {name:10} held out {bare:.4f}, with the adapter {apart:.6f}, merged {merged:.6f};"
              f" float32 {apart32:.6f}, merged {merged32:.6f}", end="")
    assert bare - apart > 1000 * SAME_MERGED
    assert abs(merged32 - apart32) <= SAME_MERGED
    assert abs(merged - apart) <= LOST_IN_BF16 * (bare - apart)


def difference(left: dict, right: dict, initial: dict) -> float:
    """Relative to what training changed."""
    def norm(a, b):
        return sum(float((a[key] - b[key]).square().sum()) for key in a) ** 0.5

    return norm(left, right) / norm(right, initial)


def test_three_processes_train_what_one_does(trained, capsys):
    """18 rows a step: 6 in each of three processes, or all in one; a loss of one row in 18 is seen. In float32, because
    in bf16 the factor 3 of the processes' losses rounds otherwise, which Adam makes 7 % of the change in five steps."""
    three, one = trained("three") / "ddp", trained("one")
    assert (report(three)["processes"], report(three)["wrapped"]) == (3, "DistributedDataParallel")
    assert report(one / "all")["processes"] == 1
    initial = adapter(one / "all" / "initial")
    assert initial.keys() == adapter(three).keys()
    assert all(torch.equal(tensor, adapter(three / "initial")[key]) for key, tensor in initial.items())
    same = difference(adapter(three), adapter(one / "all"), initial)
    lost = difference(adapter(one / "lost"), adapter(one / "all"), initial)
    losses = distance(report(three)["losses"], report(one / "all")["losses"])
    with capsys.disabled():
        print(f"\n  three processes: adapter within {same:.1e}, losses within {losses:.1e}; a lost row {lost:.1e}",
              end="")
    assert same <= SAME_ADAPTER
    assert lost > 20 * SAME_ADAPTER
    assert losses <= 1e-5
