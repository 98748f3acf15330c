"""`make gpu-proof` without a card: what can run does, what is said of the rest, and how it judges made-up figures."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GPU = ROOT / "Tests/GPU"
TINY = ["--layers", "1", "--hidden", "128", "--intermediate", "192", "--heads", "2", "--vocabulary", "320"]
GIB = 1 << 30


@pytest.fixture(scope="module")
def parts():
    """The pure parts; their folder comes last, and leaves again, as its modules have plain names."""
    sys.path.append(str(GPU))
    import claims
    import table

    yield claims, table
    sys.path.remove(str(GPU))


@pytest.fixture(scope="module")
def proof(nibble, tmp_path_factory):
    """Runs the script with this interpreter; no card is visible, though there be one."""
    base = tmp_path_factory.mktemp("gpu-proof")
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHON": sys.executable, "NIBBLE": str(nibble.path)}

    def run(*arguments, expect: int = 0) -> tuple[str, dict]:
        command = [sys.executable, GPU / "gpu_proof.py", *TINY, "--work", base / "work", "--out", base / "out"]
        result = subprocess.run([*map(str, command), *arguments], capture_output=True, text=True, env=environment)
        assert result.returncode == expect, result.stdout + result.stderr
        (found,) = (base / "out").glob("*.json")
        return found.with_suffix(".md").read_text(), json.loads(found.read_text())

    run.work = base / "work"
    return run


def line(text: str, part: str) -> str:
    return next(line for line in text.splitlines() if part in line)


def test_without_a_card(proof):
    text, report = proof("--steps", "checkpoint,quantize,verify,fit,train")
    assert report["machine"]["card"] is None
    assert "none; what needs one was not run" in text
    for step in ("train-bf16", "train-512", "train-2048", "paging", "codes"):
        assert report["steps"][step] == {"status": "not run", "reason": "no NVIDIA card"}
        assert f"- {step}: not run, no NVIDIA card" in text
    assert "make gpu-proof-pack" in text
    assert "| pass |" in line(text, "Losses are finite")
    assert "| not run |" in line(text, "does not fit 24 GiB")
    assert len(report["steps"]["fit-13b"]["figures"]["rows"]) == 14 and "not measured here" in text
    row = report["steps"]["train-cpu"]["figures"]["rows"][0]
    assert row["fit"]["per_gpu"]["total"] > row["fit"]["framework"] > 0


def test_steps_go_on_where_they_were(proof):
    before = proof("--steps", "checkpoint,quantize,verify")[1]["steps"]
    assert proof("--steps", "checkpoint,quantize,verify")[1]["steps"] == before
    result = subprocess.run([sys.executable, GPU / "gpu_proof.py", "--steps", "trian"], capture_output=True, text=True)
    assert result.returncode == 2 and "no step trian" in result.stderr


def test_a_damaged_checkpoint_fails(proof):
    proof("--steps", "checkpoint,quantize,verify")
    (shard,) = proof.work.glob("*-nf4/model.safetensors")
    with open(shard, "r+b") as file:
        file.seek(-1000, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1000, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    text, _ = proof("--steps", "verify", "--again", expect=1)
    assert "| FAIL |" in line(text, "`nibble verify` finds")


def row(allocated: float, **other) -> dict:
    """A training row as a card would give it; sizes in GiB."""
    memory = {"allocated": int(allocated * GIB), "reserved": int((allocated + 1) * GIB), "limit": 24 * GIB,
              "device": int((allocated + 1.5) * GIB)}
    fit = {"strategy": "qlora", "fits": True, "framework": GIB // 2, "per_gpu": {"total": int(12.5 * GIB)}}
    return {"name": "a run", "model": "nf4", "sequence": 512, "checkpointing": True, "optimizer": "adamw", "fit": fit,
            "targets": "all-linear", "outcome": "trained", "losses": [3.0, 2.0], "memory": memory,
            "loading": memory | {"device": 9 * GIB}, "tokens_per_second": 100.0} | other


def made_up(**steps) -> dict:
    """A report of a whole run on a card, for judging only: no page is made of it."""
    states = {name.replace("_", "-"): {"status": "done", "figures": figures} for name, figures in steps.items()}
    return {"machine": {"card": {"name": "a card"}}, "steps": states,
            "settings": {"whole": True, "limit": 24 * GIB, "sequences": [512]}}


@pytest.mark.parametrize("allocated", [12.0, 13.1, 10.9, 13.3, 10.7])
def test_fit_is_judged_by_a_tenth(parts, allocated):
    claims, _ = parts
    found = claims.planned_well(made_up(train_512={"rows": [row(allocated)]}))
    assert found.verdict == (claims.PASS if 10.8 <= allocated <= 13.2 else claims.FAIL)


def test_memory_that_ran_out_is_judged(parts):
    claims, _ = parts
    gone = row(24, outcome="out of memory", losses=[], during="step 1", message="CUDA out of memory")
    report = made_up(train_512={"rows": [gone]}, train_bf16={"rows": [gone, row(24)]})
    assert claims.fits_card(report).verdict == claims.FAIL
    assert claims.sixteen_bits(report).verdict == claims.FAIL
    assert claims.planned_well(report).verdict == claims.FAIL
    assert claims.sixteen_bits(made_up(train_bf16={"rows": [gone, gone]})).verdict == claims.PASS
    assert claims.fits_card(made_up(train_512={"rows": [row(23)]})).verdict == claims.FAIL  # the whole card counts
    loading = row(12)["memory"] | {"device": 25 * GIB}
    assert claims.fits_card(made_up(train_512={"rows": [row(12, loading=loading)]})).verdict == claims.FAIL
    assert claims.fits_card(made_up(train_512={"rows": [row(12)]})).verdict == claims.PASS
    for losses in ([2.0, 2.0], [2.0, None], []):
        assert claims.losses_fall(made_up(train_512={"rows": [row(12, losses=losses)]})).verdict == claims.FAIL


def test_paging_is_judged(parts):
    claims, _ = parts
    good = {"state_bytes": 400, "managed_bytes": 400, "room": 200, "losses": [3.0, 2.0]}
    good["unpaged_losses"] = [3.0, 2.0, 1.0]
    assert claims.pages(made_up(paging=good)).verdict == claims.PASS
    for wrong in ({"room": 400}, {"managed_bytes": 0}, {"losses": [3.0, 2.1]}, {"losses": []}):
        assert claims.pages(made_up(paging=good | wrong)).verdict == claims.FAIL, wrong


def test_a_step_that_broke_fails_its_claim(parts):
    claims, _ = parts
    report = made_up()
    report["steps"]["codes"] = {"status": "failed", "reason": "exit code 1"}
    found = claims.same_logits(report)
    assert (found.verdict, found.detail) == (claims.FAIL, "step codes: exit code 1")
    assert claims.verified(report).verdict == claims.NOT_RUN


def test_searched_scales_are_judged(parts):
    claims, _ = parts
    row = {"finite": True, "relative": 0.0}
    good = {"negative": 3, "logits": dict.fromkeys(claims.LOGITS, row)}
    assert claims.same_searched_logits(made_up(codes={"searched": good})).verdict == claims.PASS
    far = dict.fromkeys(claims.LOGITS, row | {"relative": 1.0})
    for wrong in ({"negative": 0}, {"logits": far}, {"logits": dict.fromkeys(claims.LOGITS, row | {"finite": False})}):
        assert claims.same_searched_logits(made_up(codes={"searched": good | wrong})).verdict == claims.FAIL, wrong


def test_a_training_row_is_told(parts):
    claims, table = parts
    cells = table.training_row(row(11.4))
    assert cells[6:14] == ["11.40", "12.40", "12.90", "12.00", "-5.0%", "12.50", "+3.2%", "yes"]


@pytest.mark.skipif(sys.platform != "linux", reason="the pack is made on Linux only")
def test_the_pack_unpacks_and_runs(nibble, tmp_path):
    environment = os.environ | {"WHEELS": "none", "NIBBLE": str(nibble.path)}
    subprocess.run([GPU / "pack.sh", tmp_path / "dist"], check=True, env=environment, stdout=subprocess.DEVNULL)
    (packed,) = (tmp_path / "dist").iterdir()
    subprocess.run(["tar", "-C", tmp_path, "-xf", packed], check=True)
    folder = tmp_path / packed.name.removesuffix(".tar")
    environment = {name: value for name, value in os.environ.items() if name != "NIBBLE"}
    result = subprocess.run([folder / "gpu-proof", "--help"], capture_output=True, text=True, env=environment)
    assert result.returncode == 0 and "--steps" in result.stdout, result.stderr
    # The tool in it finds its libraries.
    subprocess.run([folder / "tool/nibble", "--version"], check=True, env=environment, stdout=subprocess.DEVNULL)
