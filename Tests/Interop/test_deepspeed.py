"""Directories of DeepSpeed's ZeRO as a source: what its own scripts make of them, and what they leave out."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from checkpoint import same
from tool import MISSING, UNSUPPORTED

SCRIPT = pathlib.Path(__file__).with_name("zero_files.py")
CASES = [("stage1", 2), ("stage2", 2), ("stage3", 3)]
LONG = [("stage0", 2), ("bf16", 2), ("stage2", 3), ("stage3", 2)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Each is made when it is first asked for; not to be changed."""
    made = {}

    def directory(kind: str, processes: int) -> pathlib.Path:
        if (kind, processes) not in made:
            out = tmp_path_factory.mktemp(f"{kind}-{processes}")
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                       str(processes), str(SCRIPT), kind, str(out)]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
            assert result.returncode == 0, result.stderr
            made[kind, processes] = out
        return made[kind, processes]

    return directory


def converted(nibble, source, out) -> dict[str, torch.Tensor]:
    nibble.run("convert", source, "-o", out, "--quiet")
    assert {path.name for path in out.iterdir()} == {"model.safetensors", "nibble-manifest.json", "checksums.xxh128"}
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize(
    ("kind", "processes"), CASES + [pytest.param(*case, marks=pytest.mark.long) for case in LONG])
def test_values(nibble, saved, tmp_path, kind, processes):
    """Bit for bit what DeepSpeed gives tensor by tensor, and zero_to_fp32.py for all that it does not leave out."""
    source = saved(kind, processes)
    expected = torch.load(source / "expected.pt", weights_only=True)
    for number, path in enumerate([source / "checkpoint", source / "checkpoint/global_step2"]):
        found = converted(nibble, path, tmp_path / str(number))
        assert found.keys() == expected.keys()
        assert not [name for name, tensor in expected.items() if not same(found[name], tensor)]
    joined = source / "joined/pytorch_model.bin"
    if joined.exists():
        theirs = torch.load(joined, weights_only=True)
        assert not [name for name, tensor in theirs.items() if not torch.equal(found[name].float(), tensor.float())]
        # Stage 1 drops what is not trained, without a word.
        lost = found.keys() - theirs.keys()
        assert all(name.startswith(("frozen.", "again.")) for name in lost) and bool(lost) == (kind == "stage1")
    if (source / "universal").exists():
        universal = converted(nibble, source / "universal", tmp_path / "universal")
        assert universal.keys() == expected.keys()
        assert all(same(universal[name], tensor) for name, tensor in expected.items())


def test_a_rank_that_is_missing(nibble, saved, tmp_path):
    broken = shutil.copytree(saved("stage3", 3), tmp_path / "broken") / "checkpoint"
    name = "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"
    (broken / "global_step2" / name).unlink()
    error = nibble.run("convert", broken, "-o", tmp_path / "out", expect=MISSING).stderr
    assert name in error and not (tmp_path / "out").exists()


def test_adapter(nibble, saved, tmp_path):
    """What PEFT saves itself, with its configuration from beside; merged, the same model."""
    source = saved("lora", 2)
    run = shutil.copytree(source / "checkpoint", tmp_path / "run")
    assert "has no adapter_config.json" in nibble.run("convert", run, "-o", tmp_path / "out", expect=MISSING).stderr
    shutil.copy(source / "adapter/adapter_config.json", run)
    for number, path in enumerate([run, run / "global_step2"]):
        out = tmp_path / str(number)
        warnings = nibble.run("convert", path, "-o", out, "--dtype", "bfloat16").stderr
        assert "left out, which is not of the adapter" in warnings
        found, expected = (load_file(folder / "adapter_model.safetensors") for folder in (out, source / "adapter"))
        assert found.keys() == expected.keys()
        assert not [name for name, tensor in expected.items() if not same(found[name], tensor.bfloat16())]
        nibble.run("merge", source / "base", out, "-o", tmp_path / f"merged-{number}", "--quiet")
    nibble.run("merge", source / "base", source / "adapter", "-o", tmp_path / "merged", "--quiet")
    assert nibble.json("diff", tmp_path / "merged-0", tmp_path / "merged")["equal"]
    error = nibble.run("merge", source / "base", run, "-o", tmp_path / "out", expect=UNSUPPORTED).stderr
    assert "nibble convert" in error
    (tmp_path / "steps/checkpoint-30").mkdir(parents=True)
    options = ["-o", tmp_path / "out.gguf", "--base", source / "base"]
    assert "/checkpoint-30'" in nibble.run("convert", tmp_path / "steps", *options, expect=MISSING).stderr


def test_dtype(nibble, saved, tmp_path):
    source = saved("stage2", 2)
    expected = torch.load(source / "expected.pt", weights_only=True)
    nibble.run("convert", source / "checkpoint", "-o", tmp_path / "out", "--dtype", "bfloat16", "--quiet")
    found = load_file(tmp_path / "out/model.safetensors")
    assert all(same(found[name], t.bfloat16() if t.is_floating_point() else t) for name, t in expected.items())
