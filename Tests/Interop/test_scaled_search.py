"""`--scale-search`, `--importance` and `--feedback` for compressed-tensors: less error in files that it loads as ever."""

import json

import pytest
import torch
import transformers

import checkpoint
from checkpoint import same
from test_feedback import write as write_factors
from test_scale_search import means, write_imatrix, write_statistics
from tool import DIFFERENT, REJECTED, ROOT, USAGE

FIXTURE = ROOT / "fixtures" / "sql-llama"
WEIGHT = "model.layers.0.self_attn.q_proj.weight"
# What is left of the squared error of the fixture's weights.
SHARES = {
    ("w4a16", "mse"): 0.80, ("w4a16", "positive"): 0.87, ("nvfp4a16", "mse"): 0.80, ("mxfp4a16", "mse"): 0.998,
}


def dequantized(nibble, folder) -> dict[str, torch.Tensor]:
    nibble.json("convert", folder, "-o", f"{folder}-plain")
    return checkpoint.tensors(f"{folder}-plain")


def errors(nibble, folder, importance=None) -> dict[str, float]:
    """The squared error of each weight that is quantized, weighted by what its columns count."""
    found, plain, original = checkpoint.tensors(folder), dequantized(nibble, folder), checkpoint.tensors(FIXTURE)
    names = [name.removesuffix("_packed") for name in found if name.endswith(".weight_packed")]
    assert WEIGHT in names
    return {
        name: ((plain[name].double() - original[name].double()) ** 2
               * (1 if importance is None else torch.tensor(importance[name]))).sum().item()
        for name in names
    }


@pytest.mark.parametrize(("scheme", "kind"), SHARES)
def test_less_error(scheme, kind, nibble, tmp_path):
    """In no weight more than compressed-tensors' own; loaded by it as Nibble reads it back."""
    options = "--scheme", scheme
    nibble.quantize(FIXTURE, tmp_path / "plain", *options)
    nibble.quantize(FIXTURE, tmp_path / "out", *options, "--scale-search", kind)
    nibble.verify(tmp_path / "out", "--against", FIXTURE)
    theirs, mine = (errors(nibble, tmp_path / name) for name in ("plain", "out"))
    assert all(mine[name] < theirs[name] for name in theirs)
    share = sum(mine.values()) / sum(theirs.values())
    assert share <= SHARES[scheme, kind], share
    assert json.loads((tmp_path / "out/nibble-manifest.json").read_text())["options"]["scaleSearch"] == kind

    plain, out = (checkpoint.tensors(tmp_path / name) for name in ("plain", "out"))
    assert {name: (each.dtype, each.shape) for name, each in out.items()} == {
        name: (each.dtype, each.shape) for name, each in plain.items()
    }
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("plain", "out")]
    assert configs[0] == configs[1]
    if scheme == "w4a16":
        scales = torch.cat([each.flatten() for name, each in out.items() if name.endswith("_scale")])
        assert (scales.min() < 0 < scales.max()) == (kind == "mse") and not (scales == 0).any()

    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", quantization_config=transformers.CompressedTensorsConfig(run_compressed=False)
    )
    values = loaded.state_dict()
    for name, wanted in checkpoint.tensors(tmp_path / "out-plain").items():
        assert same(values[name], wanted), name
    with torch.no_grad():
        assert loaded(torch.arange(3, 20)[None]).logits.isfinite().all()


@pytest.mark.parametrize(("scheme", "bound"), [("w4a16", 0.9), ("nvfp4a16", 0.7), ("mxfp4a16", 0.99)])
def test_importance(scheme, bound, nibble, tmp_path):
    """The weighted error is less than without; both kinds of file give the same bytes; `verify` makes it again."""
    values = means()
    statistics, matrix = tmp_path / "some.stats", tmp_path / "some.imatrix"
    write_statistics(statistics, values)
    write_imatrix(matrix, values)
    options = ["--scheme", scheme, "--scale-search", "mse"]
    nibble.quantize(FIXTURE, tmp_path / "search", *options)
    nibble.quantize(FIXTURE, tmp_path / "statistics", *options, "--importance", statistics, "--jobs", "1")
    nibble.quantize(FIXTURE, tmp_path / "matrix", *options, "--importance", matrix, "--jobs", "5")
    plain, weighted = (errors(nibble, tmp_path / name, values) for name in ("search", "statistics"))
    assert all(weighted[name] < plain[name] for name in plain)
    assert sum(weighted.values()) < bound * sum(plain.values())
    mine, theirs = (checkpoint.tensors(tmp_path / name) for name in ("statistics", "matrix"))
    assert all(same(mine[name], theirs[name]) for name in theirs)

    nibble.verify(tmp_path / "matrix", "--against", FIXTURE, "--importance", matrix)
    report = nibble.json("verify", tmp_path / "matrix", "--against", FIXTURE)
    assert report["ok"] and any("--importance" in note and "some.imatrix" in note for note in report["notChecked"])
    write_statistics(statistics, {name: each[::-1].copy() for name, each in values.items()})
    report = nibble.json(
        "verify", tmp_path / "statistics", "--against", FIXTURE, "--importance", statistics, expect=DIFFERENT)
    assert report["problems"]


def correlated(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of inputs that go together: a part that all columns have, and one of their own."""
    generator = torch.Generator().manual_seed(4)
    grams = {}
    for name, weight in weights.items():
        columns = weight.shape[1]
        rows = torch.randn(1000, columns, dtype=torch.float64, generator=generator) * 0.5
        rows += torch.randn(1000, 1, dtype=torch.float64, generator=generator) * (torch.arange(columns) % 5)
        grams[name] = rows.T @ rows / 1000
    return grams


@pytest.mark.parametrize("search", [[], ["--scale-search", "mse"]], ids=["plain", "search"])
@pytest.mark.parametrize("scheme", ["w4a16", "nvfp4a16", "mxfp4a16"])
def test_feedback(scheme, search, nibble, tmp_path):
    """Products with such inputs lose half as much or less; `verify` makes it again; loaded as Nibble reads it back."""
    torch.manual_seed(3)
    source, path, options = tmp_path / "source", tmp_path / "some.stats", ["--scheme", scheme, *search]
    transformers.LlamaForCausalLM(transformers.LlamaConfig(
        hidden_size=128, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4, vocab_size=32,
        tie_word_embeddings=False,
    )).bfloat16().save_pretrained(source)
    original = checkpoint.tensors(source)
    grams = correlated({name: weight for name, weight in original.items() if "_proj" in name})
    write_factors(path, grams)
    nibble.quantize(source, tmp_path / "without", *options)
    nibble.quantize(source, tmp_path / "out", *options, "--feedback", path)
    losses = []
    for folder in ("without", "out"):
        values = dequantized(nibble, tmp_path / folder)
        losses.append({})
        for name, gram in grams.items():
            difference = values[name].double() - original[name].double()
            losses[-1][name] = ((difference @ gram) * difference).sum().item()
    assert all(losses[1][name] < 0.5 * losses[0][name] for name in grams), losses
    nibble.verify(tmp_path / "out", "--against", source, "--feedback", path)
    report = nibble.json("verify", tmp_path / "out", "--against", source)
    assert report["ok"] and any("--feedback" in note for note in report["notChecked"])
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", quantization_config=transformers.CompressedTensorsConfig(run_compressed=False)
    ).state_dict()
    for name, wanted in checkpoint.tensors(tmp_path / "out-plain").items():
        assert same(loaded[name], wanted), name


def test_refused(nibble, tmp_path):
    path = tmp_path / "some.stats"
    values = means()
    write_statistics(path, values)

    def refused(code: int, text: str, *options) -> None:
        result = nibble.run("quantize", FIXTURE, "-o", tmp_path / "no", *options, expect=code)
        assert text in result.stderr, result.stderr
        assert not (tmp_path / "no").exists()

    for scheme in ("fp8-channel", "fp8-block"):
        refused(USAGE, f"'--scale-search' is not for {scheme}", "--scheme", scheme, "--scale-search", "mse")
        refused(USAGE, f"'--feedback' is not for {scheme}", "--scheme", scheme, "--feedback", path)
    refused(USAGE, "name that, too", "--scheme", "w4a16", "--importance", path)
    refused(USAGE, "'most' is not one of mse, positive", "--scheme", "w4a16", "--scale-search", "most")
    refused(REJECTED, "was made without --hessian", "--scheme", "w4a16", "--feedback", path)
    refused(USAGE, "is for NF4 and FP4, compressed-tensors", "--scheme", "mxfp4", "--scale-search", "mse")
    write_statistics(path, values | {WEIGHT: values[WEIGHT][:-1].copy()})
    refused(REJECTED, f"some.stats: tensor '{WEIGHT}': has", "--scheme", "w4a16", "--scale-search", "mse",
            "--importance", path)
    write_statistics(path, {"other.weight": values[WEIGHT]})
    refused(REJECTED, "another model's", "--scheme", "w4a16", "--scale-search", "mse", "--importance", path)
