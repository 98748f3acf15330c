"""`nibble.load` with a mesh: every rank its own part, the same training, and errors on all ranks."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import pytest
import torch
from bitsandbytes.functional import has_avx512bf16
from safetensors.torch import load_file

from test_python_open import flip, place
from test_training import OPERATORS, compile_operators
from tool import ROOT, Nibble

sys.path.insert(0, str(ROOT / "Tests" / "Bench"))
import models  # noqa: E402

PROGRAM = pathlib.Path(__file__).with_name("mesh_run.py")
RANKS = (2, 3)

# Packed weights of 0.5 to 1.4 MB, so that some are read in pieces, and an embedding of 16 MB.
SHAPE = models.Shape(layers=2, hidden=1024, intermediate=2816, heads=8, vocabulary=8192)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(out, mode: str, ranks: int, *checkpoints, steps: int = 3, environment=None, **more) -> list[dict]:
    """Runs all ranks to their end; what each wrote. A rank that hangs fails the test.

    checkpoints: each a path for all ranks, or a list of one per rank.
    """
    out.mkdir(parents=True)
    settings = {"mode": mode, "ranks": ranks, "out": str(out), "steps": steps} | more
    lists = [paths if isinstance(paths, list) else [paths] * ranks for paths in checkpoints]
    settings["checkpoints"] = [list(map(str, paths)) for paths in lists]
    variables = os.environ | (environment or {}) | {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT / "Sources" / "Python"),
    }
    processes = []
    for rank in range(1 if mode == "single" else ranks):
        world = 1 if mode == "single" else ranks
        mine = variables | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
        command = [sys.executable, str(PROGRAM), json.dumps(settings)]
        log = open(out / f"rank{rank}.log", "wb")
        processes.append(subprocess.Popen(command, env=mine, stdout=log, stderr=log))
    deadline = time.monotonic() + 900
    try:
        for process in processes:
            process.wait(max(0.1, deadline - time.monotonic()))
    finally:
        for process in processes:
            process.kill()
    reports = []
    for rank, process in enumerate(processes):
        path = out / f"rank{rank}.json"
        if not path.exists():
            assert more.get("fail") == "killed", (out / f"rank{rank}.log").read_text()
        reports.append(json.loads(path.read_text()) if path.exists() else {"killed": process.returncode})
    return reports


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("mesh")
    models.ensure(SHAPE, folder / "bf16")
    for storage in ("bfloat16", "uint8"):
        Nibble().quantize(folder / "bf16", folder / storage, "--quant-storage", storage, "--max-shard-size", "20MB")
    return folder


@pytest.fixture(scope="module")
def single(folder):
    """What one process computes that does the work of all ranks, one after the other."""
    return {ranks: start(folder / f"single{ranks}", "single", ranks, folder / "bfloat16")[0] for ranks in RANKS}


@pytest.fixture(scope="module", params=[(2, "bfloat16"), (3, "bfloat16"), (3, "uint8")], ids=str)
def sharded(request, folder):
    ranks, storage = request.param
    out = folder / f"fsdp{ranks}{storage}"
    return ranks, out, folder / storage, start(out, "fsdp", ranks, folder / storage)


def data_bytes(checkpoint: pathlib.Path) -> int:
    manifest = json.loads((checkpoint / "nibble-manifest.json").read_text())
    return sum(tensor["bytes"] for tensor in manifest["tensors"].values())


def difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest difference, relative to the largest value of the tensor."""
    assert a.keys() == b.keys() and a
    return max(((a[name] - b[name]).abs().max() / b[name].abs().max().clamp_min(1e-12)).item() for name in a)


def check_training(ranks: int, out: pathlib.Path, reports: list[dict], folder: pathlib.Path, single: dict) -> None:
    """Losses, first gradients and the adapter against the single process."""
    assert not any(report["errors"] for report in reports), reports
    first = [report["losses"][0][0] for report in reports]
    # Before the first step nothing is averaged over ranks: the same numbers, bit for bit.
    assert first == single[ranks]["losses"][0]
    for step, expected in enumerate(single[ranks]["losses"]):
        for rank, report in enumerate(reports):
            assert report["losses"][step][0] == pytest.approx(expected[rank], abs=2e-3), (step, rank)
    assert single[ranks]["losses"][-1][0] < single[ranks]["losses"][0][0] - 0.02
    gradients = [load_file(path / "gradients.safetensors") for path in (out, folder / f"single{ranks}")]
    assert any("lora_B" in name and tensor.any() for name, tensor in gradients[1].items())
    # Sums of the same float32 numbers in another order.
    assert difference(*gradients) < 1e-5
    adapters = [load_file(path / "adapter" / "adapter_model.safetensors") for path in (out, folder / f"single{ranks}")]
    assert adapters[0].keys() == adapters[1].keys()
    for name, tensor in adapters[0].items():
        # AdamW's first steps are as large as the learning rate even where a gradient is next to nothing.
        assert (tensor - adapters[1][name]).norm() <= 2e-2 * adapters[1][name].norm(), name


@pytest.mark.kernels
def test_sharded_training_is_that_of_one_process(sharded, folder, single):
    ranks, out, _, reports = sharded
    check_training(ranks, out, reports, folder, single)


@pytest.mark.long
def test_a_mesh_of_two_dimensions(folder):
    """Replicated over the first, sharded over the second: still one copy, and the training of one process."""
    single = {4: start(folder / "single4", "single", 4, folder / "bfloat16")[0]}
    reports = start(folder / "hsdp", "fsdp", 4, folder / "bfloat16", mesh=[2, 2])
    check_training(4, folder / "hsdp", reports, folder, single)
    assert 1 <= sum(report["bytes_read"] for report in reports) / data_bytes(folder / "bfloat16") <= 1.05


def test_all_ranks_together_read_one_copy(sharded):
    ranks, _, checkpoint, reports = sharded
    read = [report["bytes_read"] for report in reports]
    assert 1 <= sum(read) / data_bytes(checkpoint) <= 1.05
    assert max(read) <= 1.3 * sum(read) / ranks, "one rank does another's work"


def test_evaluation_between_steps_does_not_change_the_weights(sharded):
    """bitsandbytes repacks for the CPU in eval mode; without the guard in the loader this fails where it does."""
    reports = sharded[3]
    for report in reports:
        before, after = report["guarded"]
        assert before == after
    if has_avx512bf16():
        assert any(abs(a - b) > 1e-3 for report in reports for a, b in zip(*report["repacked"]))


def test_the_adapter_merges(sharded, folder, nibble):
    _, out, checkpoint, _ = sharded
    report = nibble.json("merge", checkpoint, out / "adapter", "-o", out / "merged")
    assert len(report["changes"]) == SHAPE.layers * 7
    nibble.verify(out / "merged")


@pytest.fixture(scope="module", params=RANKS)
def replicated(request, folder):
    out = folder / f"ddp{request.param}"
    return request.param, out, start(out, "ddp", request.param, folder / "uint8")


@pytest.mark.kernels
def test_replicated_training_is_that_of_one_process(replicated, folder, single):
    ranks, out, reports = replicated
    check_training(ranks, out, reports, folder, single)


def test_replicated_ranks_share_one_copy_and_its_check(replicated, folder):
    """Every rank holds the whole model, and no page of it is its own; each byte is checked by one of them."""
    ranks, _, reports = replicated
    size = data_bytes(folder / "uint8")
    layer = SHAPE.quantized_parameters // SHAPE.layers // 2
    assert sum(report["bytes_read"] for report in reports) == pytest.approx(size, rel=0.01)
    for report in reports:
        assert report["private"] < layer, f"of {size} bytes"
        # DDP adds buckets for the gradients of the adapter, and sends no frozen weight to anyone.
        assert report["private_ddp"] < layer + report["adapter"], f"of {size} bytes"
        assert report["bytes_read"] < 0.8 * size


@pytest.mark.kernels
def test_zero2_shares_one_copy(folder, single):
    """DeepSpeed sends no frozen weight to anyone either, which would make every page of it the process's own."""
    compile_operators()
    reports = start(folder / "zero2", "zero2", 2, folder / "uint8", environment={
        "DS_ACCELERATOR": "cpu", "TORCH_EXTENSIONS_DIR": str(OPERATORS), "LOCAL_SIZE": "2",
        "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    })
    assert not any(report["errors"] for report in reports), reports
    assert [report["losses"][0][0] for report in reports] == single[2]["losses"][0]
    for report in reports:
        assert report["losses"][-1][0] < report["losses"][0][0] - 0.02
        # Gradients and optimizer state are small beside it.
        assert report["private_ddp"] < data_bytes(folder / "uint8") / 4 + 3 * report["adapter"]


@pytest.mark.kernels
def test_fsdp1_shards_what_every_rank_loaded(folder, single):
    """With a floating storage type, and the guard against repacking holds for it too; integers torch refuses."""
    reports = start(folder / "fsdp1", "fsdp1", 2, folder / "bfloat16")
    assert not any(report["errors"] for report in reports), reports
    assert [report["losses"][0][0] for report in reports] == single[2]["losses"][0]
    for report in reports:
        assert report["losses"][-1][0] < report["losses"][0][0] - 0.02
        before, after = report["guarded"]
        assert before == after
    for report in start(folder / "fsdp1-uint8", "fsdp1", 2, folder / "uint8"):
        assert "Cannot flatten integer dtype tensors" in report["errors"][0]["text"]


@pytest.mark.parametrize("mode", ["fsdp", "ddp"])
def test_a_new_head_is_the_same_on_all_ranks(mode, folder):
    """Its random values, and those of the copy that is trained, are the first rank's."""
    reports = start(folder / f"head-{mode}", mode, 2, folder / "uint8", steps=0, labels=3)
    assert not any(report["errors"] for report in reports), reports
    first, second = (report["heads"] for report in reports)
    assert first == second and len(first) == 2
    original, copy = first.values()
    assert original == copy and len(copy) == 3 and any(copy[0])


def resident(path: pathlib.Path) -> int:
    """Bytes of a file that are in the page cache, as fincore of util-linux counts them."""
    command = ["fincore", "-b", "-n", "-o", "RES", str(path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(finished.stdout)


def evict(checkpoint: pathlib.Path) -> int:
    """Drops a checkpoint's pages; what is still there, for a file system that keeps them."""
    left = 0
    for path in checkpoint.glob("*.safetensors"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
        left += resident(path)
    return left


def test_pages_say_the_same_as_the_counter(folder):
    """Each rank has files of its own, as on nodes that share nothing, and cold: together they fetch one copy."""
    ranks = 2
    copies = [pathlib.Path(shutil.copytree(folder / "bfloat16", folder / f"node{rank}")) for rank in range(ranks)]
    size = sum(path.stat().st_size for path in copies[0].glob("*.safetensors"))
    if any([evict(copy) > 0.02 * size for copy in copies]):
        pytest.skip("this file system keeps the pages of files that nobody uses")
    reports = start(folder / "cold", "fsdp", ranks, copies, steps=0)
    assert not any(report["errors"] for report in reports), reports
    fetched = sum(resident(path) for copy in copies for path in copy.glob("*.safetensors"))
    assert 0.98 * size <= fetched <= 1.05 * size


def broken(folder: pathlib.Path, name: str, damage) -> list[pathlib.Path]:
    """A good checkpoint for the first rank, a damaged copy for the second."""
    copy = pathlib.Path(shutil.copytree(folder / "bfloat16", folder / name))
    damage(copy)
    return [folder / "bfloat16", copy]


def last_shard(copy: pathlib.Path) -> pathlib.Path:
    return sorted(copy.glob("*.safetensors"))[-1]


WEIGHT = "model.layers.1.mlp.down_proj.weight"
FAULTS = {
    # The second rank's half of the weight is the later one.
    "flipped": (lambda copy: flip(copy, WEIGHT, place(copy, WEIGHT)["bytes"] - 9), "DigestError", WEIGHT),
    "truncated": (lambda copy: os.truncate(last_shard(copy), 1000), "CheckpointError", "truncated"),
    "missing": (lambda copy: last_shard(copy).unlink(), "CheckpointError", "No such file"),
}


def test_damage_on_one_rank_is_an_error_on_all(folder):
    copies = {fault: broken(folder, fault, damage) for fault, (damage, _, _) in FAULTS.items()}
    first, second = start(folder / "faults", "fsdp", 2, *copies.values(), steps=0)
    assert len(first["errors"]) == len(second["errors"]) == len(FAULTS)
    for fault, mine, theirs in zip(FAULTS, second["errors"], first["errors"]):
        _, kind, text = FAULTS[fault]
        assert mine["type"] == kind and text in mine["text"] and str(copies[fault][1]) in mine["text"]
        assert theirs["type"] == "CheckpointError"
        assert "rank 1: " in theirs["text"] and mine["text"] in theirs["text"]


def test_a_rank_that_is_killed_while_loading(folder):
    started = time.monotonic()
    reports = start(folder / "killed", "fsdp", 3, folder / "bfloat16", steps=0, fail="killed")
    assert reports[2] == {"killed": 9}
    for report in reports[:2]:
        (error,) = report["errors"]
        assert error["type"] == "CheckpointError" and "another rank went away" in error["text"]
    assert time.monotonic() - started < 120
