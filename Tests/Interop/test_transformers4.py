"""The same checkpoints under transformers 4.57, whose rules for what is skipped differ."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

import checkpoint
import oracle
from architectures import CASES
from tool import ROOT

HERE = pathlib.Path(__file__).resolve().parent
OVERLAY = pathlib.Path(sys.prefix) / "transformers-4"

# Name of the row in architectures.py, options of the tool, quantized modules.
ROWS = {
    "llama": ([], 14),
    "llama-biases-f32": ([], 14),
    "qwen2": ([], 14),
    "gpt2": ([], 8),
    "mixtral": (["--target", "transformers-4"], 2 * (4 + 4 * 3)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, nibble):
    folder = tmp_path_factory.mktemp("transformers4")
    for case in [case for case in CASES if case.name in ROWS]:
        case.create().save_pretrained(folder / case.name / "source")
        nibble.quantize(folder / case.name / "source", folder / case.name / "out", *ROWS[case.name][0])
    return folder


@pytest.fixture(scope="module")
def report(folder):
    rows = [
        {"name": case.name, "model": case.model,
         "source": str(folder / case.name / "source"), "out": str(folder / case.name / "out"),
         "listed": bool(ROWS[case.name][0])}
        for case in CASES if case.name in ROWS
    ]
    command = [sys.executable, str(HERE / "transformers4.py"), json.dumps(rows)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(OVERLAY), str(ROOT / "Sources" / "Python")])}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout)
    assert report["version"].startswith("4.57.")
    return report["results"]


@pytest.mark.parametrize("name", ROWS)
def test_loads_under_transformers_4(name, report):
    result = report[name]
    assert "failure" not in result, result["failure"]
    assert result["information"] == {}
    assert result["quantized"] == ROWS[name][1]
    assert result["finite"] and result["error"] <= oracle.MAXIMUM_RELATIVE_LOGIT_ERROR


def test_experts_one_by_one(folder, report):
    """--target transformers-4 quantizes every expert; the routers stay as they are."""
    weights = checkpoint.four_bit_weights(checkpoint.tensors(folder / "mixtral" / "out"))
    assert sum(".experts." in name for name in weights) == 2 * 4 * 3
    assert {name for name in report["mixtral"]["names"]} == set(weights)
    count = oracle.check_checkpoint(folder / "mixtral" / "out", folder / "mixtral" / "source")
    assert count == ROWS["mixtral"][1]
