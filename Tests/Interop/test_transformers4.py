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
from architectures import CASES, EXPERTS, F32, VISION, Case, case, text
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
# Checkpoints of the base model alone. T5's conditional class is its own base.
SHORT_BASES = {"llama", "qwen2", "mixtral", "gpt2", "falcon", "gemma3-text", "gpt-neox"}
BASES = [row.name for row in CASES if row.name not in TOWERS and not row.model.startswith(("T5", "MT5"))]
# What has no causal class.
NOT_CAUSAL = {"vit-classifier", "distilbert-classifier", "qwen2-vl"}
# 4.57 does not find the weights of Gemma 3's base for the causal class, in 16 bits neither. It also stops at 4-bit
# weights that the causal class lacks, an encoder's or a pooler's, and so it does at those that bitsandbytes has saved.
# CLIP's base is saved under names that 4.57 does not know.
ONLY_TRANSFORMERS_5 = {"gemma3-text", "bart", "whisper", "bert-classifier", "clip-text"}
# All that the others may lack.
HEADS = {"lm_head", "embed_out", "pooler"}
# Of classes with a pooler, saved from below heads that use none.
POOLERS = {
    "vit": case("vit-classifier"),
    "roberta": Case("roberta", "RobertaForTokenClassification", text(num_labels=32), F32),
    "bert": Case("bert", "BertForTokenClassification", text(num_labels=32), F32),
}
# Base models and classes above them: whose name or whose name for the base is unusual, or with layers of their own.
ABOVE = {
    "T5ForTokenClassification": Case(
        "t5-encoder", "T5EncoderModel", {"vocab_size": 96, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2,
                                         "num_heads": 4, "num_labels": 32}, F32),
    "Qwen3MoeForQuestionAnswering": Case("qwen3-moe", "Qwen3MoeModel", text(**EXPERTS, head_dim=32)),
    "ViTMAEForPreTraining": Case("vit-mae", "ViTMAEModel", VISION, F32),
    "Wav2Vec2ForXVector": Case(
        "wav2vec2", "Wav2Vec2Model", text(conv_dim=[32, 32], conv_kernel=[3, 3], conv_stride=[2, 2], num_labels=32,
                                          num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=4), F32),
    "CLIPTextModelWithProjection": Case("clip-text", "CLIPTextModel", text(), F32),
}
AUTO = ["AutoModel", "AutoModelForCausalLM"]


def keys(information: dict) -> dict[str, set]:
    return {kind: set(map(str, found)) for kind, found in information.items() if found}


def base_parameters() -> list:
    return [
        pytest.param(name, auto, marks=[] if name in SHORT_BASES else [pytest.mark.long])
        for name in BASES for auto in AUTO if auto == "AutoModel" or name not in NOT_CAUSAL
    ]


def save(model, folder: pathlib.Path) -> pathlib.Path:
    model.save_pretrained(folder)
    # 4.57 has another name for it.
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] == "qwen3_moe":
        (folder / "config.json").write_text(json.dumps(config | {"num_experts": config["num_local_experts"]}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory, nibble, request):
    folder = tmp_path_factory.mktemp("transformers4")
    for row in CASES:
        isLong = row.name not in SHORT and not request.config.getoption("--long")
        isBase = row.name in BASES and (row.name in SHORT_BASES or request.config.getoption("--long"))
        if row.name in TOWERS or isLong and row.name not in ROWS and not isBase:
            continue
        model = row.create()
        source = save(model, folder / row.name / "source")
        nibble.quantize(source, folder / row.name / "default")
        if row.name in ROWS:
            nibble.quantize(source, folder / row.name / "out", *ROWS[row.name][0])
        if isBase:
            base = save(model.base_model, folder / row.name / "base")
            nibble.quantize(base, folder / row.name / "base-out")
    for name, row in POOLERS.items():
        base = save(row.create().base_model, folder / f"{name}-below" / "base")
        nibble.quantize(base, folder / f"{name}-below" / "base-out")
    for head, row in ABOVE.items():
        base = save(row.create(), folder / head / "base")
        nibble.quantize(base, folder / head / "base-out")
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
            paths = {"plain": str(folder / row.name / "base"), "out": str(folder / row.name / "base-out")}
            autos = [auto for auto in AUTO if auto == "AutoModel" or row.name not in NOT_CAUSAL]
            rows += [{**paths, "name": f"{row.name} {auto}", "model": auto} for auto in autos]
    for name in POOLERS:
        rows.append({"name": f"{name}-below", "model": "AutoModel", "out": str(folder / f"{name}-below" / "base-out")})
    for head in ABOVE:
        paths = {"plain": str(folder / head / "base"), "out": str(folder / head / "base-out")}
        rows.append({**paths, "name": head, "model": head})
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


def check_base(folder: pathlib.Path, model_class, result: dict, loads: bool) -> list[dict[str, set]]:
    """Quantized, a class finds of a base model what it finds in 16 bits, in both versions. What that was, of each."""
    model, information = model_class.from_pretrained(folder / "base-out", output_loading_info=True)
    _, plain = model_class.from_pretrained(folder / "base", dtype="auto", output_loading_info=True)
    names = [key for key, parameter in model.named_parameters() if isinstance(parameter, Params4bit)]
    assert ("failure" not in result) == loads, result
    loaded = [(keys(information), names, keys(plain))]
    if loads:
        loaded.append((keys(result["information"]), result["names"], keys(result["plain"])))
    weights = set(checkpoint.four_bit_weights(checkpoint.tensors(folder / "base-out")))
    for found, quantized, expected in loaded:
        assert found == expected
        present = weights - expected.get("unexpected_keys", set())
        assert len(quantized) == len(present), set(quantized) ^ present
    return [expected for *_, expected in loaded]


@pytest.mark.parametrize("name, auto", base_parameters())
def test_base_models_load_below_a_head(name, auto, folder, report):
    """And the head, which the checkpoint does not have, is none of 4 bits."""
    loads = auto == "AutoModel" or name not in ONLY_TRANSFORMERS_5
    for found in check_base(folder / name, getattr(transformers, auto), report[f"{name} {auto}"], loads):
        if name not in ONLY_TRANSFORMERS_5:
            assert found.keys() <= {"missing_keys"}
            assert {key.partition(".")[0] for key in found.get("missing_keys", ())} <= HEADS


@pytest.mark.parametrize("head", ABOVE)
def test_base_models_load_below_other_heads(head, folder, report):
    loads = ABOVE[head].name not in ONLY_TRANSFORMERS_5
    for found in check_base(folder / head, getattr(transformers, head), report[head], loads):
        assert found.keys() == {"missing_keys"}


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
