"""`--feedback` for GGUF: errors made good in later columns, in blocks that stock readers decode."""

import json

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

import checkpoint
import gguf_families
from calibration import Statistics, calibrate
from gguf_families import Family, sizes
from test_fixture import fixture_module
from tool import DIFFERENT, REJECTED, ROOT, UNSUPPORTED, USAGE

FIXTURE = ROOT / "fixtures" / "sql-llama"
MIXTRAL = Family("mixtral-256", "MixtralForCausalLM", sizes(
    hidden=256, heads=8, num_local_experts=4, num_experts_per_tok=2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Questions with their answers, held out of the training, and what the model's layers are given by them."""
    folder = tmp_path_factory.mktemp("measured")
    with open(folder / "text.jsonl", "w") as file:
        for pair in fixture_module().heldout(450)[200:]:
            file.write(json.dumps({"text": f"{pair.prompt} {pair.sql}"}) + "\n")
    calibrate(FIXTURE, folder / "text.jsonl", "-o", folder / "some.stats", "--imatrix", folder / "some.imatrix",
              "--tokens", 8192, "--seq-len", 128, "--hessian", "-q")
    return folder


def tensors(path) -> dict:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def same(a, b) -> bool:
    return a.tensor_type == b.tensor_type and np.array_equal(a.data, b.data)


def loaded(path) -> torch.nn.Module:
    return transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)


PARTS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def output_errors(path, statistics: Statistics) -> dict[str, float]:
    """What each weight's products lose on such inputs, by the trace of (W - W')·H·(W - W')ᵀ."""
    mine, plain, found = tensors(path), checkpoint.tensors(FIXTURE), {}
    for layer in range(4):
        for name, part in PARTS.items():
            name = f"model.layers.{layer}.{name}.weight"
            weight = plain[name].double()
            if part in ("attn_q", "attn_k"):
                # The rows of each head of 32, as GGUF has them.
                weight = weight.reshape(-1, 2, 16, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
            tensor = mine[f"blk.{layer}.{part}.weight"]
            values = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy()).double()
            difference = values - weight
            found[name] = ((difference @ statistics.of(name, "gram").double()) * difference).sum().item()
    return found


@pytest.mark.parametrize("scheme", ["q4_k_m", "q4_0"])
def test_less_damage(nibble, folder, tmp_path, capsys, scheme):
    """In every layer and in what comes out, against an importance matrix of the same text, in a file of the same size."""
    options = {
        "plain": [], "importance": ["--imatrix", folder / "some.imatrix"],
        "feedback": ["--feedback", folder / "some.stats"],
    }
    make, statistics = fixture_module(), Statistics(folder / "some.stats")
    reference, tokenizer = make.load(FIXTURE)
    reference = reference.float()
    held_out = [torch.tensor([make.encode(tokenizer, pair)[0]]) for pair in make.heldout(40)]
    with torch.no_grad():
        original = [torch.log_softmax(reference(ids).logits, -1) for ids in held_out]
    divergences, errors, types = {}, {}, {}
    for name, arguments in options.items():
        path = tmp_path / f"{name}.gguf"
        nibble.quantize(FIXTURE, path, "--scheme", scheme, *arguments)
        nibble.verify(path)
        types[name] = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(path).tensors}
        model = loaded(path)
        errors[name] = output_errors(path, statistics)
        with torch.no_grad():
            mine = [torch.log_softmax(model(ids).logits, -1) for ids in held_out]
        divergences[name] = sum((a.exp() * (a - b)).sum().item() for a, b in zip(original, mine))
    shares = {name: value / divergences["plain"] for name, value in divergences.items()}
    with capsys.disabled():
        print(f"\n  {scheme}: " + ", ".join(f"{name} {share:.3f}" for name, share in shares.items()))
    assert types["feedback"] == types["importance"]
    assert len(errors["feedback"]) == 4 * 7
    for name, error in errors["feedback"].items():
        assert error < 0.8 * min(errors["plain"][name], errors["importance"][name]), name
    # The embeddings are no better than without.
    assert shares["feedback"] <= 0.8 * shares["importance"]


@pytest.mark.parametrize("scheme", ["q8_0", "q5_k_m", "q6_k", "iq4_xs", "iq4_nl", "q3_k_m", "q4_1", "q5_0"])
def test_every_type(nibble, folder, tmp_path, scheme):
    """Values are those that the package gguf reads from the blocks, so that the errors it was made good by are the true
    ones: in no layer more than without."""
    errors = []
    for name, arguments in {"plain": [], "feedback": ["--feedback", folder / "some.stats"]}.items():
        path = tmp_path / f"{name}.gguf"
        nibble.quantize(FIXTURE, path, "--scheme", scheme, *arguments)
        errors.append(output_errors(path, Statistics(folder / "some.stats")))
    for name, error in errors[1].items():
        assert error < 0.8 * errors[0][name], name


def test_repeats(nibble, folder, tmp_path):
    """The same bytes with any number of workers, from a GGUF file of the same values, and when `verify` makes them again."""
    options = ["--scheme", "q4_k_m", "--feedback", folder / "some.stats"]
    one, many, plain = (tmp_path / f"{name}.gguf" for name in ("one", "many", "plain"))
    nibble.quantize(FIXTURE, one, *options, "--jobs", "1")
    nibble.quantize(FIXTURE, many, *options, "--jobs", "7")
    assert one.read_bytes() == many.read_bytes()
    assert gguf.GGUFReader(one).fields["quantize.feedback.file"].contents() == "some.stats"
    nibble.run("convert", FIXTURE, "-o", plain)
    nibble.quantize(plain, tmp_path / "again.gguf", *options)
    made, again = tensors(one), tensors(tmp_path / "again.gguf")
    assert made.keys() == again.keys() and all(same(made[name], again[name]) for name in made)

    for source in (FIXTURE, plain):
        report = nibble.verify(one, "--against", source, "--feedback", folder / "some.stats")
        assert not report["notChecked"]
    report = nibble.verify(one, "--against", FIXTURE)
    assert any("--feedback names the file, which was 'some.stats'" in note for note in report["notChecked"])
    data = bytearray(one.read_bytes())
    data[made["blk.2.ffn_down.weight"].data_offset + 40] ^= 1
    one.write_bytes(data)
    (tmp_path / "one.gguf.nibble-manifest.json").unlink()
    report = nibble.verify(one, "--against", FIXTURE)
    assert any("made good" in note for note in report["notChecked"])
    nibble.quantize(FIXTURE, one, *options, "--force")
    one.write_bytes(data)
    report = nibble.json(
        "verify", one, "--against", FIXTURE, "--feedback", folder / "some.stats", expect=DIFFERENT)
    assert any(problem["problem"].startswith("1 byte is not the one") for problem in report["problems"])


def test_with_importance(nibble, folder, tmp_path):
    """An importance matrix is for what has no correlations; both are repeated."""
    name, part = "model.layers.1.mlp.up_proj.weight", "blk.1.ffn_up.weight"
    statistics, importance = tmp_path / "less.stats", ["--importance", folder / "some.imatrix"]
    found = Statistics(folder / "some.stats")
    modules = {weight: value for weight, value in found.modules.items() if weight != name}
    save_file(found.tensors, statistics, metadata=found.metadata | {"modules": json.dumps(modules)})
    model, weighted = tmp_path / "both.gguf", tmp_path / "weighted.gguf"
    report = nibble.quantize(FIXTURE, model, "--scheme", "q4_k_m", "--feedback", statistics, *importance)
    assert any(f"no correlations for 1 weight, whose errors are not made good: '{name}'" in warning
               for warning in report["warnings"])
    nibble.quantize(FIXTURE, weighted, "--scheme", "q4_k_m", *importance)
    mine, other = tensors(model), tensors(weighted)
    assert same(mine[part], other[part]) and not same(mine["blk.0.ffn_up.weight"], other["blk.0.ffn_up.weight"])
    for path, options in ((model, ["--feedback", statistics, *importance]), (weighted, importance)):
        assert not nibble.verify(path, "--against", FIXTURE, *options)["notChecked"]
    report = nibble.verify(model, "--against", FIXTURE, "--feedback", statistics)
    assert any("--importance names the file" in note for note in report["notChecked"])
    result = nibble.run("quantize", FIXTURE, "-o", tmp_path / "no.gguf", "--scheme", "q4_k_m",
                        "--feedback", folder / "some.stats", *importance, expect=USAGE)
    assert "option '--importance' has no effect" in result.stderr


def test_experts(nibble, families, folder, tmp_path):
    """Of these no correlations are measured: they stay as they would be without."""
    directory = families.directory(MIXTRAL)
    (tmp_path / "text.txt").write_text((folder / "text.jsonl").read_text())
    calibrate(directory, tmp_path / "text.txt", "-o", tmp_path / "s", "--tokens", 1024, "--seq-len", 64, "--hessian", "-q")
    report = nibble.quantize(directory, tmp_path / "made.gguf", "--scheme", "q4_k_m", "--feedback", tmp_path / "s")
    assert any("no correlations" in warning and "ffn_down_exps" in warning for warning in report["warnings"])
    nibble.quantize(directory, tmp_path / "plain.gguf", "--scheme", "q4_k_m")
    made, plain = tensors(tmp_path / "made.gguf"), tensors(tmp_path / "plain.gguf")
    changed = {name for name in made if not same(made[name], plain[name])}
    assert changed >= {f"blk.0.attn_{name}.weight" for name in ("q", "k", "v", "output")}
    assert not [name for name in changed if "exps" in name or "embd" in name or "norm" in name]


def test_refused(nibble, families, folder, tmp_path):
    def refused(code: int, text: str, source, *options) -> None:
        result = nibble.run("quantize", source, "-o", tmp_path / "no.gguf", *options, expect=code)
        assert text in result.stderr, result.stderr
        assert not (tmp_path / "no.gguf").exists()

    feedback = ["--feedback", folder / "some.stats"]
    refused(UNSUPPORTED, "without a level for each value", FIXTURE, "--scheme", "tq2_0", "--pure", *feedback)
    refused(REJECTED, "another model's", families.directory(gguf_families.family("gpt2")), "--scheme", "q8_0", *feedback)
    calibrate(FIXTURE, folder / "text.jsonl", "-o", tmp_path / "s", "--tokens", 64, "-q")
    refused(REJECTED, "made without --hessian", FIXTURE, "--scheme", "q4_0", "--feedback", tmp_path / "s")
    refused(UNSUPPORTED, "some.imatrix", FIXTURE, "--scheme", "q4_0", "--feedback", folder / "some.imatrix")
    nibble.quantize(FIXTURE, tmp_path / "q8_0.gguf", "--scheme", "q8_0")
    refused(USAGE, "no effect", tmp_path / "q8_0.gguf", "--scheme", "q8_0", *feedback)
