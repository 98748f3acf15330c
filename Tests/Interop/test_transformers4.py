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
from architectures import CASES, F32, Case, case, text
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
# Checkpoints of the base model alone, and what a causal model made of it lacks: nothing where the head is tied.
# GPT-NeoX's head has another name in 4.57; Gemma 3's base class has a word in its name that the causal class has not.
HEAD = {"lm_head.weight"}
BASES = {
    "llama": HEAD, "qwen2": set(), "mixtral": HEAD, "gpt2": set(), "falcon": set(), "gemma3-text": set(),
    "gpt-neox": HEAD, "phi": HEAD | {"lm_head.bias"}, "gptj": HEAD | {"lm_head.bias"}, "opt": set(), "bloom": set(),
    "starcoder2": set(), "cohere": set(), "glm4": HEAD, "nemotron": HEAD,
}
LONG_BASES = {"phi", "gptj", "opt", "bloom", "starcoder2", "cohere", "glm4", "nemotron"}
# 4.57 finds the weights of such a base in no causal model, in 16 bits neither.
ONLY_TRANSFORMERS_5 = {("gemma3-text", "AutoModelForCausalLM")}
FORMER_HEADS = {"gpt-neox": {"embed_out.weight"}}
# Of classes with a pooler, saved from below heads that use none.
POOLERS = {
    "vit": case("vit-classifier"),
    "roberta": Case("roberta", "RobertaForTokenClassification", text(num_labels=32), F32),
    "bert": Case("bert", "BertForTokenClassification", text(num_labels=32), F32),
}
AUTO = ["AutoModel", "AutoModelForCausalLM"]


def parameters(names: dict) -> list:
    return [pytest.param(name, marks=[pytest.mark.long] if name in LONG_BASES else []) for name in names]


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
        isBase = row.name in BASES and not (isLong and row.name in LONG_BASES)
        if row.name in TOWERS or isLong and row.name not in ROWS and not isBase:
            continue
        source = save(row, folder / row.name / "source")
        nibble.quantize(source, folder / row.name / "default")
        if row.name in ROWS:
            nibble.quantize(source, folder / row.name / "out", *ROWS[row.name][0])
        if isBase:
            model = row.model_class.from_pretrained(source, dtype="auto")
            model.base_model.save_pretrained(folder / row.name / "base")
            nibble.quantize(folder / row.name / "base", folder / row.name / "base-out")
    for name, row in POOLERS.items():
        row.create().base_model.save_pretrained(folder / f"{name}-below" / "base")
        nibble.quantize(folder / f"{name}-below" / "base", folder / f"{name}-below" / "base-out")
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
        if (folder / row.name / "base-out").exists():
            out = str(folder / row.name / "base-out")
            rows += [{"name": f"{row.name} {auto}", "model": auto, "out": out} for auto in AUTO]
    for name in POOLERS:
        rows.append({"name": f"{name}-below", "model": "AutoModel", "out": str(folder / f"{name}-below" / "base-out")})
    command = [sys.executable, str(HERE / "transformers4.py"), json.dumps(rows)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(OVERLAY), str(ROOT / "Sources" / "Python")])}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout)
    assert report["version"].startswith("4.57.")
    return report["results"]


@pytest.mark.kernels
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


@pytest.mark.parametrize("name", parameters(BASES))
@pytest.mark.parametrize("auto", AUTO)
def test_base_models_load_below_a_head(name, auto, folder, report):
    """In both versions, and the head, which the checkpoint does not have, is none of 4 bits."""
    out = folder / name / "base-out"
    weights = checkpoint.four_bit_weights(checkpoint.tensors(out))
    model, information = getattr(transformers, auto).from_pretrained(out, output_loading_info=True)
    names = [key for key, parameter in model.named_parameters() if isinstance(parameter, Params4bit)]
    result = report[f"{name} {auto}"]
    assert ("failure" in result) == ((name, auto) in ONLY_TRANSFORMERS_5), result
    missing = set() if auto == "AutoModel" else BASES[name]
    former = FORMER_HEADS.get(name, missing) if missing else missing
    loaded = [(information, names, missing)]
    if "failure" not in result:
        loaded.append((result["information"], result["names"], former))
    for found, quantized, missing in loaded:
        assert set(found.get("missing_keys", ())) == missing
        assert not found.get("unexpected_keys") and not found.get("mismatched_keys")
        assert len(quantized) == len(weights), set(quantized) ^ set(weights)


@pytest.mark.parametrize("name", POOLERS)
def test_base_models_without_their_pooler(name, folder, report):
    """A class makes the pooler that a checkpoint lacks: in 16 bits, since it has no values to be in 4."""
    out = folder / f"{name}-below" / "base-out"
    weights = checkpoint.four_bit_weights(checkpoint.tensors(out))
    assert not any("pooler" in key for key in checkpoint.tensors(out))
    model, information = transformers.AutoModel.from_pretrained(out, output_loading_info=True)
    names = [key for key, parameter in model.named_parameters() if isinstance(parameter, Params4bit)]
    result = report[f"{name}-below"]
    assert "failure" not in result, result["failure"]
    for found, quantized in ((information, names), (result["information"], result["names"])):
        assert set(found.get("missing_keys", ())) == {"pooler.dense.weight", "pooler.dense.bias"}
        assert not found.get("unexpected_keys") and not found.get("mismatched_keys")
        assert len(quantized) == len(weights), set(quantized) ^ set(weights)


def test_experts_one_by_one(folder, report):
    """--target transformers-4 quantizes every expert; the routers stay as they are."""
    weights = checkpoint.four_bit_weights(checkpoint.tensors(folder / "mixtral" / "out"))
    assert sum(".experts." in name for name in weights) == 2 * 4 * 3
    assert {name for name in report["mixtral"]["names"]} == set(weights)
    count = oracle.check_checkpoint(folder / "mixtral" / "out", folder / "mixtral" / "source")
    assert count == ROWS["mixtral"][1]
