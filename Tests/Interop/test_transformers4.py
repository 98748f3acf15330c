"""The same checkpoints under transformers 4.57, whose rules for what is skipped differ."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import transformers
from bitsandbytes.nn import Params4bit

import checkpoint
import oracle
from architectures import CASES, case
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
# The default target's, which are for both versions. Towers are saved under names that 4.57 does not know.
TOWERS = {"llava", "gemma3"}
# What keeps modules in 16 bits that 4.57 takes for linear ones: experts, routers, subclasses, heads of other names.
SHORT = {"mixtral", "qwen2-moe", "qwen3-moe", "gpt-neox", "falcon", "t5", "whisper"}
DEFAULT = [
    pytest.param(row.name, id=row.name, marks=[] if row.name in SHORT else [pytest.mark.long])
    for row in CASES if row.name not in TOWERS
]
# Checkpoints of the base model alone, and whether the head that it is loaded below is tied.
BASES = {"llama": False, "qwen2": True, "mixtral": False, "gpt2": True, "falcon": True}
AUTO = ["AutoModel", "AutoModelForCausalLM"]


def save(row, folder: pathlib.Path) -> pathlib.Path:
    row.create().save_pretrained(folder)
    # 4.57 has another name for it.
    config = json.loads((folder / "config.json").read_text())
    if row.name == "qwen3-moe":
        (folder / "config.json").write_text(json.dumps(config | {"num_experts": config["num_local_experts"]}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory, nibble, request):
    folder = tmp_path_factory.mktemp("transformers4")
    for row in CASES:
        isLong = row.name not in SHORT and not request.config.getoption("--long")
        if row.name in TOWERS or isLong and row.name not in ROWS and row.name not in BASES:
            continue
        source = save(row, folder / row.name / "source")
        nibble.quantize(source, folder / row.name / "default")
        if row.name in ROWS:
            nibble.quantize(source, folder / row.name / "out", *ROWS[row.name][0])
        if row.name in BASES:
            model = row.model_class.from_pretrained(source, dtype="auto")
            model.base_model.save_pretrained(folder / row.name / "base")
            nibble.quantize(folder / row.name / "base", folder / row.name / "base-out")
    return folder


@pytest.fixture(scope="module")
def report(folder):
    rows = []
    for row in CASES:
        common = {"case": row.name, "model": row.model, "source": str(folder / row.name / "source"), "run": row.run}
        if (folder / row.name / "out").exists():
            listed = bool(ROWS[row.name][0])
            rows.append({**common, "name": row.name, "out": str(folder / row.name / "out"), "listed": listed})
        if (folder / row.name / "default").exists():
            out = str(folder / row.name / "default")
            rows.append({**common, "name": f"{row.name} default", "out": out, "listed": True})
        if row.name in BASES:
            out = str(folder / row.name / "base-out")
            rows += [{"name": f"{row.name} {auto}", "model": auto, "out": out} for auto in AUTO]
    command = [sys.executable, str(HERE / "transformers4.py"), json.dumps(rows)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(OVERLAY), str(ROOT / "Sources" / "Python")])}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
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


@pytest.mark.parametrize("name", DEFAULT)
def test_default_target_loads_under_transformers_4(name, folder, report):
    """What stays in 16 bits is in the skip list, so that 4.57 makes no 4-bit module of it."""
    result = report[f"{name} default"]
    assert "failure" not in result, result["failure"]
    assert result["information"] == {}
    weights = checkpoint.four_bit_weights(checkpoint.tensors(folder / name / "default"))
    assert result["quantized"] == len(weights)
    if case(name).run:
        assert result["finite"] and result["error"] <= oracle.MAXIMUM_RELATIVE_LOGIT_ERROR


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("auto", AUTO)
def test_base_models_load_below_a_head(name, auto, folder, report):
    """In both versions, and the head, which the checkpoint does not have, is none of 4 bits."""
    out = folder / name / "base-out"
    weights = checkpoint.four_bit_weights(checkpoint.tensors(out))
    model, information = getattr(transformers, auto).from_pretrained(out, output_loading_info=True)
    names = [key for key, parameter in model.named_parameters() if isinstance(parameter, Params4bit)]
    result = report[f"{name} {auto}"]
    assert "failure" not in result, result["failure"]
    missing = [] if auto == "AutoModel" or BASES[name] else ["lm_head.weight"]
    for found, quantized in ((information, names), (result["information"], result["names"])):
        assert list(found.get("missing_keys", ())) == missing
        assert not found.get("unexpected_keys") and not found.get("mismatched_keys")
        assert len(quantized) == len(weights), set(quantized) ^ set(weights)


def test_experts_one_by_one(folder, report):
    """--target transformers-4 quantizes every expert; the routers stay as they are."""
    weights = checkpoint.four_bit_weights(checkpoint.tensors(folder / "mixtral" / "out"))
    assert sum(".experts." in name for name in weights) == 2 * 4 * 3
    assert {name for name in report["mixtral"]["names"]} == set(weights)
    count = oracle.check_checkpoint(folder / "mixtral" / "out", folder / "mixtral" / "source")
    assert count == ROWS["mixtral"][1]
