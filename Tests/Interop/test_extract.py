"""`nibble extract-lora`: PEFT loads what it writes, and merged back it gives the tuned model to the stated energy."""

import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

import adapters
import checkpoint
import oracle
import peft_merge
from adapters import CONFIG, WEIGHTS, Row, quiet, row
from architectures import BF16, F32
from tool import REJECTED, UNSUPPORTED

pytestmark = pytest.mark.kernels


def extract(nibble, base, tuned, out, *options, rank=8) -> dict:
    report = nibble.json("extract-lora", base, tuned, "--rank", rank, "-o", out, *options)
    nibble.verify(out)
    assert {path.name for path in out.iterdir()} == set(report["files"])
    return report


def load(row: Row, base, adapter) -> peft.PeftModel:
    """As a user loads it; no key may be missing or left over."""
    with quiet():
        model = peft.PeftModel.from_pretrained(row.load_base(base), adapter)
        result = model.load_adapter(adapter, adapter_name="default")
    assert not result.missing_keys and not result.unexpected_keys, result
    return model


def changes(base, tuned) -> dict[str, torch.Tensor]:
    """What became of each tensor, in float64."""
    before, after = checkpoint.tensors(base), checkpoint.tensors(tuned)
    found = {name: after[name].double() - before[name].double() for name in before.keys() & after.keys()
             if before[name].shape == after[name].shape}
    return {name: change for name, change in found.items() if change.any()}


def best_energy(change: torch.Tensor, rank: int) -> float:
    squares = torch.linalg.svdvals(change) ** 2
    return float(squares[:rank].sum() / squares.sum())


def check_energies(report: dict, base, tuned, adapter, transposed=False) -> None:
    """Each module's is that of the exact decomposition, and that of the factors in the file."""
    found, factors, rank = changes(base, tuned), load_file(adapter / WEIGHTS), report["rank"]
    residual = total = 0.0
    for module in report["modules"]:
        change = found[module["module"] + ".weight"]
        assert module["energy"] == pytest.approx(best_energy(change, rank), abs=1e-5), module
        values = torch.linalg.svdvals(change)[: len(module["singularValues"])].tolist()
        assert module["singularValues"] == pytest.approx(values, rel=1e-4, abs=1e-5 * values[0])
        key = f"{adapters.PREFIX}{module['module']}"
        product = factors[f"{key}.lora_B.weight"].double() @ factors[f"{key}.lora_A.weight"].double()
        left = change - (product.T if transposed else product)
        assert module["energy"] == pytest.approx(1 - float((left**2).sum() / (change**2).sum()), abs=1e-6)
        base_norm = checkpoint.tensors(base)[module["module"] + ".weight"].double().norm()
        assert module["relativeChange"] == pytest.approx(float(change.norm() / base_norm), rel=1e-6)
        residual, total = residual + float((left**2).sum()), total + float((change**2).sum())
    assert report["energy"] == pytest.approx(1 - residual / total, abs=1e-6)
    assert report["relativeChange"] > 0


def check_merged(row: Row, base, tuned, adapter, model: peft.PeftModel, nibble, out, error: float) -> None:
    """PEFT's merge and Nibble's are the tuned model, but for `error` of each weight."""
    nibble.json("merge", base, adapter, "-o", out)
    with quiet():
        theirs = model.merge_and_unload().state_dict()
        expected = row.auto_class.from_pretrained(tuned, dtype="auto").state_dict()
        mine = row.auto_class.from_pretrained(out, dtype="auto").state_dict()
    assert theirs.keys() == expected.keys() == mine.keys()
    for name, tensor in expected.items():
        for merged in (theirs[name], mine[name]):
            assert merged.shape == tensor.shape, name
            assert oracle.relative_error(merged, tensor) <= error, name


# What is left in float32 is its own rounding; of a 16-bit model, what rounding the merged weights did.
ROUND_TRIPS = [
    ("plain-f32", None, 1 - 1e-9, 1e-6),
    ("plain-f32", "bfloat16", 1 - 1e-9, None),
    ("plain-bf16", None, 0.9999, 4e-3),
    ("plain-f16", None, 0.99999, 1e-3),
    ("conv1d", None, 0.9999, 4e-3),
    ("rslora", None, 0.9999, 4e-3),
    ("layers", None, 0.9999, 4e-3),
    ("encoder-decoder", None, 1 - 1e-9, 1e-6),
    ("dora-f32", None, None, None),
]


@pytest.mark.parametrize("name, dtype, energy, error", ROUND_TRIPS, ids=[f"{n}-{d}" for n, d, *_ in ROUND_TRIPS])
def test_round_trip(name, dtype, energy, error, bases, nibble, tmp_path):
    """base + PEFT adapter → merge → extract-lora → PEFT and Nibble merge it back."""
    base, tuned, out = bases[row(name).base], tmp_path / "tuned", tmp_path / "out"
    nibble.json("merge", base, row(name).create(base, tmp_path / "adapter"), "-o", tuned)
    report = extract(nibble, base, tuned, out, *(["--dtype", dtype] if dtype else []))
    assert not report["notCaptured"] and not report["warnings"]
    assert {module["module"] + ".weight" for module in report["modules"]} == changes(base, tuned).keys()
    config = json.loads((out / CONFIG).read_text())
    assert config["fan_in_fan_out"] == (name == "conv1d")
    assert config["r"] == config["lora_alpha"] == 8 and config["base_model_name_or_path"] == str(base)
    if dtype:
        assert {tensor.dtype for tensor in load_file(out / WEIGHTS).values()} == {BF16}
        assert 1 - 2e-5 < report["energy"] < 1 - 1e-7
    elif energy:
        assert report["energy"] > energy
        assert all(module["energy"] > 0.999 for module in report["modules"])
    check_energies(report, base, tuned, out, transposed=name == "conv1d")
    model = load(row(name), base, out)
    if error:
        check_merged(row(name), base, tuned, out, model, nibble, tmp_path / "again", error)


@pytest.mark.parametrize("name", ["plain-bf16", "plain-f32", "conv1d"])
@pytest.mark.parametrize("rank", [1, 3, 20])
def test_other_ranks(name, rank, bases, nibble, tmp_path):
    """Fewer or more than the adapter had: the energy is that of the exact decomposition all the same."""
    base, tuned, out = bases[row(name).base], tmp_path / "tuned", tmp_path / "out"
    nibble.json("merge", base, row(name).create(base, tmp_path / "adapter"), "-o", tuned)
    report = extract(nibble, base, tuned, out, rank=rank)
    check_energies(report, base, tuned, out, transposed=name == "conv1d")
    load(row(name), base, out)


@pytest.mark.parametrize("case", ["llama", "gpt2", "qwen2", "mistral", "phi3", "t5", "bert-classifier", "gpt-neox"])
def test_full_tuning(case, bases, nibble, tmp_path):
    """Every parameter changed, as by training without an adapter: full ranks, all else saved whole."""
    task = {"t5": "SEQ_2_SEQ_LM", "bert-classifier": "SEQ_CLS"}.get(case, "CAUSAL_LM")
    own = Row(case, case, {}, task=task)
    base, tuned, out = bases[case], tmp_path / "tuned", tmp_path / "out"
    model = own.load_base(base)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.02
            parameter.copy_((parameter.float() + noise).to(parameter.dtype))
    model.save_pretrained(tuned)
    report = extract(nibble, base, tuned, out, "--save-rest", rank=32)
    assert not report["notCaptured"], report["notCaptured"]
    check_energies(report, base, tuned, out, transposed=case == "gpt2")
    loaded = load(own, base, out)
    captured = {module["module"] + ".weight" for module in report["modules"]}
    with quiet():
        merged = loaded.merge_and_unload().state_dict()
    for name, tensor in model.state_dict().items():
        if name not in captured:
            assert checkpoint.same(merged[name], tensor), name


WHOLE = ["save-head", "save-embedding", "save-norms", "save-tie-kept", "bias-all", "bias-all-of-llama",
         "bias-lora-only", "tokens", "tokens-tied", "resized-save", "resized-tied"]


@pytest.mark.parametrize("name", WHOLE)
def test_save_rest(name, bases, nibble, tmp_path):
    """Embeddings, tied ones and resized ones, norms, head and biases go along whole."""
    base, tuned, out = bases[row(name).base], tmp_path / "tuned", tmp_path / "out"
    nibble.json("merge", base, row(name).create(base, tmp_path / "adapter"), "-o", tuned)
    if row(name).vocabulary:
        nibble.run("extract-lora", base, tuned, "--rank", 8, "-o", out, expect=REJECTED)
    else:
        bare = extract(nibble, base, tuned, tmp_path / "bare")
        assert bare["notCaptured"] and "--save-rest" in bare["warnings"][0]
        load(row(name), base, tmp_path / "bare")
    report = extract(nibble, base, tuned, out, "--save-rest")
    assert report["saved"] and not report["notCaptured"]
    check_merged(row(name), base, tuned, out, load(row(name), base, out), nibble, tmp_path / "again", 4e-3)


def test_what_no_adapter_of_modules_holds(bases, nibble, tmp_path):
    """Stacked experts are told, not saved; the attention beside them has its factors."""
    base, tuned, out = bases["mixtral"], tmp_path / "tuned", tmp_path / "out"
    experts = row("experts-and-attention")
    nibble.json("merge", base, experts.create(base, tmp_path / "adapter"), "-o", tuned)
    report = extract(nibble, base, tuned, out, "--save-rest")
    assert {entry["reason"] for entry in report["notCaptured"]} == {"it belongs to stacked experts"}
    assert len(report["notCaptured"]) == 24 and len(report["modules"]) == 8 and report["warnings"]
    load(experts, base, out)


def test_output_embedding_set_apart(bases, nibble, tmp_path):
    base, tuned = bases["qwen2"], tmp_path / "tuned"
    nibble.json("merge", base, row("embedding-tied").create(base, tmp_path / "adapter"), "-o", tuned)
    nibble.run("extract-lora", base, tuned, "--rank", 8, "-o", tmp_path / "out", expect=UNSUPPORTED)
    assert not (tmp_path / "out").exists()


def test_target(bases, nibble, tmp_path):
    """One module of one layer: its whole path, which PEFT takes for no other."""
    base, tuned, out = bases["llama"], tmp_path / "tuned", tmp_path / "out"
    nibble.json("merge", base, row("plain-bf16").create(base, tmp_path / "adapter"), "-o", tuned)
    report = extract(nibble, base, tuned, out, "--target", "*.1.self_attn.q_proj", "--target", "*.mlp.up_proj")
    names = {"model.layers.1.self_attn.q_proj", "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"}
    assert {module["module"] for module in report["modules"]} == names
    assert json.loads((out / CONFIG).read_text())["target_modules"] == ["model.layers.1.self_attn.q_proj", "up_proj"]
    assert set(peft_merge.lora_modules(load(row("plain-bf16"), base, out))) == {name + ".weight" for name in names}


def test_base_stored_without_its_prefix(bases, nibble, tmp_path):
    """As GPT-2 lies on the hub: no `transformer.`, and buffers that nobody loads any more."""
    base, bare, tuned, out = bases["gpt2"], tmp_path / "bare", tmp_path / "tuned", tmp_path / "out"
    nibble.json("merge", base, row("conv1d").create(base, tmp_path / "adapter"), "-o", tuned)
    bare.mkdir()
    (bare / "config.json").write_text((base / "config.json").read_text())
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in checkpoint.tensors(base).items()}
    buffers = {f"h.{layer}.attn.bias": torch.ones(1, 1, 64, 64).tril() for layer in range(2)}
    save_file(tensors | buffers, bare / "model.safetensors", metadata={"format": "pt"})
    report = extract(nibble, bare, tuned, out)
    assert report["energy"] > 0.9999 and not report["notCaptured"]
    assert [warning.split(":")[0] for warning in report["warnings"]] == ["buffers that loaders ignore are left out"]
    assert load_file(out / WEIGHTS).keys() == load_file(tmp_path / "adapter" / WEIGHTS).keys()
    load(row("conv1d"), bare, out)


@pytest.mark.parametrize("name", ["plain-bf16", "conv1d"])
def test_four_bit_base(name, bases, nibble, tmp_path):
    """An adapter merged onto a 4-bit base comes back; against the 16-bit one the quantization's error comes too."""
    base, nf4, tuned, out = bases[row(name).base], tmp_path / "nf4", tmp_path / "tuned", tmp_path / "out"
    nibble.quantize(base, nf4)
    nibble.json("merge", nf4, row(name).create(base, tmp_path / "adapter"), "-o", tuned)
    report = extract(nibble, nf4, tuned, out)
    assert report["energy"] > 0.9999 and not report["notCaptured"]
    restored = tmp_path / "restored"
    nibble.json("convert", nf4, "-o", restored)
    check_energies(report, restored, tuned, out, transposed=name == "conv1d")
    nibble.json("merge", nf4, out, "-o", tmp_path / "again")
    expected, mine = checkpoint.tensors(tuned), checkpoint.tensors(tmp_path / "again")
    assert all(oracle.relative_error(mine[key], expected[key]) <= 4e-3 for key in expected)
    both = extract(nibble, base, nf4, tmp_path / "noise")
    assert 0 < both["energy"] < 0.9
    check_energies(both, base, restored, tmp_path / "noise", transposed=name == "conv1d")


def test_large_weights(nibble, tmp_path):
    """Sizes at which random projection takes over: rank and noise, slow decay, and a square one without a gap."""
    generator = torch.Generator().manual_seed(5)

    def randn(*shape):
        return torch.randn(shape, generator=generator)

    low = randn(700, 16) @ randn(16, 1200) * 1e-3
    slow = torch.linalg.qr(randn(900, 400))[0] * (1 / torch.arange(1, 401)) @ torch.linalg.qr(randn(600, 400))[0].T
    deltas = {"low": low + randn(700, 1200) * 1e-3, "slow": slow, "flat": randn(512, 512) * 1e-3}
    before = {f"model.layers.0.mlp.{name}.weight": randn(*delta.shape) * 0.02 for name, delta in deltas.items()}
    after = {f"model.layers.0.mlp.{name}.weight": before[f"model.layers.0.mlp.{name}.weight"] + delta
             for name, delta in deltas.items()}
    for folder, tensors in (("base", before), ("tuned", after)):
        (tmp_path / folder).mkdir()
        save_file(tensors, tmp_path / folder / "model.safetensors", metadata={"format": "pt"})
    with adapters.one_thread():
        report = extract(nibble, tmp_path / "base", tmp_path / "tuned", tmp_path / "out", rank=16)
        for module in report["modules"]:
            change = (after[module["module"] + ".weight"] - before[module["module"] + ".weight"]).double()
            assert change.dtype == torch.float64 and before[module["module"] + ".weight"].dtype == F32
            best = best_energy(change, 16)
            assert best - 1e-4 < module["energy"] < best + 1e-6, (module["module"], module["energy"], best)
