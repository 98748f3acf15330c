"""The steps, in order. Each returns figures as plain JSON, and takes minutes, so that they can be run one by one."""

import dataclasses
import json
import re
import shutil
import statistics
import subprocess
import time

import plan
from plan import Configuration, Context, NotRun, StepFailed, models

SPARE = 2 << 30  # of disk
CPU_STEPS, CARD_STEPS = 3, 6
WAYS = {"load-stock": ("stock",), "load-nibble": ("nibble", "nibble-unverified")}


def size(folder) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def checkpoint(context: Context) -> dict:
    # What is already there is written over or used, so it counts as free.
    needed = int(2 * context.shape.parameters * 1.3) + SPARE
    context.work.mkdir(parents=True, exist_ok=True)
    there = sum(size(folder) for folder in (context.source, context.nf4) if folder.exists())
    free = shutil.disk_usage(context.work).free + there
    if free < needed:
        raise StepFailed(f"{context.work} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed; see --work")
    started = time.perf_counter()
    try:
        models.ensure(context.shape, context.source, python=str(context.python))
    except subprocess.CalledProcessError as error:
        raise StepFailed(f"making the checkpoint ended with exit code {error.returncode}") from error
    return {"seconds": time.perf_counter() - started, "bytes": size(context.source),
            "files": len(list(context.source.glob("*.safetensors"))), "parameters": context.shape.parameters}


def require(*folders) -> None:
    for folder in folders:
        if not (folder / "config.json").exists():
            raise StepFailed(f"{folder} is not there: run the steps before")


def quantize(context: Context) -> dict:
    require(context.source)
    seconds, report = context.tool("quantize", context.source, "-o", context.nf4, "--force")
    shards = sorted(context.source.glob("*.safetensors"))
    read, _ = plan.call(["sh", "-c", 'cat "$@" >/dev/null', "cat", *shards], context.state / "cat.log")
    return {"seconds": seconds, "bytes_in": size(context.source), "bytes_out": size(context.nf4),
            "cat_seconds": read, "quantized_parameters": context.shape.quantized_parameters,
            "warnings": report["warnings"]}


def verify(context: Context) -> dict:
    require(context.nf4)
    command = [context.nibble, "verify", context.nf4, "--json", "--quiet"]
    started = time.perf_counter()
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    seconds = time.perf_counter() - started
    # 1 says that something differs, which is a figure; anything else is no answer.
    if result.returncode not in (0, 1):
        raise StepFailed(f"exit code {result.returncode}: {plan.last_lines(result.stderr)}")
    return {"seconds": seconds, "bytes": size(context.nf4), "ok": result.returncode == 0}


def framework(context: Context) -> int:
    """Bytes that `nibble fit` takes for the CUDA context, as its help says it."""
    text = subprocess.run([str(context.nibble), "fit", "--help"], capture_output=True, text=True).stdout
    found = re.search(r"(\d+) MiB of each GPU are\s+taken for the CUDA context", text)
    if not found:
        raise StepFailed("`nibble fit --help` no longer says what it takes for the CUDA context")
    return int(found[1]) << 20


def fit(context: Context, configuration: Configuration, model, limit: int = plan.LIMIT) -> dict:
    options = ["--gpus", f"1x{limit}B", "--lora-rank", plan.RANK, "--target-modules", configuration.targets,
               "--batch", 1, "--seq-len", configuration.sequence, "--optimizer", configuration.optimizer]
    if not configuration.checkpointing:
        options.append("--no-gradient-checkpointing")
    _, report = context.tool("fit", model, *options)
    row = next(row for row in report["strategies"] if row["name"] == configuration.strategy)
    return {"strategy": row["name"], "fits": row["fits"], "per_gpu": row["perGPU"], "framework": framework(context)}


def described(configuration: Configuration) -> dict:
    return {"name": configuration.name} | dataclasses.asdict(configuration)


def expect(context: Context) -> dict:
    """What a card is expected to need, from the configuration alone."""
    config = context.work / "13b" / "config.json"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(json.dumps(models.CODELLAMA_13B.config()))
    every = plan.BF16 + [row for length in plan.SEQUENCES for row in plan.qlora(length)]
    return {"rows": [described(row) | {"fit": fit(context, row, config)} for row in every]}


def train_one(context: Context, configuration: Configuration, steps: int) -> dict:
    folder = context.source if configuration.model == "bf16" else context.nf4
    task = {
        "place": context.place, "limit": plan.LIMIT, "folder": str(folder), "model": configuration.model,
        "sequence": configuration.sequence, "checkpointing": configuration.checkpointing, "steps": steps,
        "optimizer": configuration.optimizer, "targets": configuration.targets, "rank": plan.RANK,
        "alpha": plan.ALPHA,
    }
    row = described(configuration) | {"fit": fit(context, configuration, context.source)}
    try:
        return row | context.child("train.py", f"train-{configuration.name}", task)
    except StepFailed as error:
        # The other rows are still worth having.
        return row | {"outcome": "failed", "message": str(error)}


def train(context: Context, configurations: list[Configuration], steps: int = CARD_STEPS) -> dict:
    require(context.source, context.nf4)
    rows = []
    for configuration in configurations:
        rows.append(train_one(context, configuration, steps))
        print(f"    {configuration.name}: {rows[-1]['outcome']}", flush=True)
    return {"rows": rows}


def load(context: Context, step: str) -> dict:
    require(context.nf4)
    if step != "load-stock":
        require_package()
    rows = []
    for way in WAYS[step]:
        for cold in (True, False):
            found = []
            for number in range(context.repeats):
                task = {"place": context.place, "folder": str(context.nf4), "way": way, "cold": cold}
                name = f"load-{way}-{'cold' if cold else 'warm'}-{number + 1}"
                found.append(context.child("load.py", name, task))
            seconds = [result["seconds"] for result in found]
            rows.append({"way": way, "cold": cold, "seconds": seconds, "median": statistics.median(seconds),
                         "bytes": found[0]["bytes"], "memory": found[-1]["memory"]})
            print(f"    {way}, {'cold' if cold else 'warm'}: {rows[-1]['median']:.2f} s", flush=True)
    return {"rows": rows}


def require_package() -> None:
    if not (plan.ROOT / "Sources/Python/nibble/__init__.py").exists():
        raise NotRun("the Python package nibble (Sources/Python/nibble) is not here")


def load_equal(context: Context) -> dict:
    require(context.nf4)
    require_package()
    return context.child("load.py", "load-equal", {"place": context.place, "folder": str(context.nf4), "way": "equal"})


def paging(context: Context) -> dict:
    found = context.child("paging.py", "paging", {"full_at_first": False})
    if not found["supported"]:
        raise NotRun("this card, or the driver, does not page managed memory")
    if found["room"] >= found["state_bytes"]:
        # This driver gives ordinary memory nothing of what managed memory holds: then the card is full before.
        found = context.child("paging.py", "paging-full-at-first", {"full_at_first": True})
    return found


def codes(context: Context) -> dict:
    source, out = plan.ROOT / "fixtures/sql-llama", context.work / "sql-llama-nf4"
    searched = context.work / "sql-llama-searched"
    context.tool("quantize", source, "-o", out, "--force")
    context.tool("quantize", source, "-o", searched, "--scale-search", "mse", "--force")
    return context.child("codes.py", "codes", {"place": context.place, "folder": str(out), "source": str(source),
                                               "searched": str(searched)})


def all_steps(has_card: bool) -> dict:
    """Name to function, in order; None for what needs a card and has none."""
    needs_card = {"train-bf16": lambda context: train(context, plan.BF16)}
    for sequence in plan.SEQUENCES:
        needs_card[f"train-{sequence}"] = lambda context, length=sequence: train(context, plan.qlora(length))
    needs_card |= {"paging": paging, "codes": codes}
    cpu = [Configuration("nf4", 64, True)]
    steps = {"checkpoint": checkpoint, "quantize": quantize, "verify": verify}
    if not has_card:
        steps["fit-13b"] = expect
        steps["train-cpu"] = lambda context: train(context, cpu, CPU_STEPS)
        needs_card = dict.fromkeys(needs_card)
    steps |= {name: step for name, step in needs_card.items() if name.startswith("train")}
    steps |= {name: lambda context, name=name: load(context, name) for name in WAYS}
    return steps | {"load-equal": load_equal} | {name: needs_card[name] for name in ("paging", "codes")}
