"""The Trainer of transformers, with accelerate's FSDP2, on a model that every rank read its part of."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from test_python_mesh import free_port
from tool import ROOT

PROGRAM = ROOT / "Tests" / "Interop" / "mesh_trainer.py"


def start(checkpoint, out, ranks: int) -> list[float]:
    """The losses that the first rank printed."""
    environment = os.environ | {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT / "Sources" / "Python"),
    }
    out.mkdir()
    processes = []
    for rank in range(ranks):
        mine = dict(environment)
        if ranks > 1:
            mine |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
        log = open(out / f"rank{rank}.log", "wb")
        command = [sys.executable, str(PROGRAM), str(checkpoint), str(out)]
        processes.append(subprocess.Popen(command, env=mine, stdout=subprocess.PIPE, stderr=log))
    try:
        outputs = [process.communicate(timeout=900)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert processes[0].returncode == 0, (out / "rank0.log").read_text()
    return json.loads(outputs[0].splitlines()[-1])


@pytest.mark.kernels
def test_the_trainer_with_fsdp2(nibble, tmp_path):
    checkpoint = tmp_path / "nf4"
    # Searched scales, negative ones among them, go through the shards like any other.
    source = ROOT / "fixtures" / "sql-llama"
    nibble.quantize(source, checkpoint, "--quant-storage", "bfloat16", "--scale-search", "mse")
    alone = start(checkpoint, tmp_path / "alone", 1)
    sharded = start(checkpoint, tmp_path / "sharded", 2)
    # The adapter begins as rank 0's in both, and both see the same rows in each step.
    assert len(alone) == 4 and sharded == pytest.approx(alone, abs=2e-3)
    ours = load_file(tmp_path / "sharded" / "adapter" / "adapter_model.safetensors")
    theirs = load_file(tmp_path / "sharded" / "checkpoint-4" / "adapter_model.safetensors")
    assert ours.keys() == theirs.keys() and len(ours) == 2 * 28
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any(tensor.any() for name, tensor in ours.items() if "lora_B" in name)
    nibble.json("merge", checkpoint, tmp_path / "sharded" / "adapter", "-o", tmp_path / "merged")
