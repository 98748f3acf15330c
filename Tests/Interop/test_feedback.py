"""`--feedback`: errors made good in later columns, by the correlations of the inputs, in files that stock loaders take."""

import json

import pytest
import torch
import transformers
from bitsandbytes import functional
from safetensors.torch import save_file

import checkpoint
from checkpoint import same
from test_convert import dequantized
from test_fixture import fixture_module
from tool import REJECTED, ROOT, UNSUPPORTED, USAGE

FIXTURE = ROOT / "fixtures" / "sql-llama"
WEIGHT = "model.layers.0.self_attn.q_proj.weight"


def sequences(start: int, stop: int) -> list[torch.Tensor]:
    """Questions with their answers; what is held out of the training."""
    make = fixture_module()
    _, tokenizer = make.load(FIXTURE)
    return [torch.tensor([make.encode(tokenizer, pair)[0]]) for pair in make.heldout(stop)[start:stop]]


@pytest.fixture(scope="module")
def reference():
    return transformers.AutoModelForCausalLM.from_pretrained(FIXTURE, dtype=torch.float32)


@pytest.fixture(scope="module")
def grams(reference) -> dict[str, torch.Tensor]:
    """Of each linear layer's inputs: the mean of their outer products, in float64."""
    sums, counts = {}, {}

    def hook(name):
        def see(_, arguments):
            rows = arguments[0].double().flatten(0, -2)
            sums[name] = sums.get(name, 0) + rows.T @ rows
            counts[name] = counts.get(name, 0) + rows.shape[0]

        return see

    handles = [
        module.register_forward_pre_hook(hook(f"{name}.weight"))
        for name, module in reference.named_modules() if isinstance(module, torch.nn.Linear) and "lm_head" not in name
    ]
    with torch.no_grad():
        for ids in sequences(200, 450):
            reference(ids)
    for handle in handles:
        handle.remove()
    return {name: total / counts[name] for name, total in sums.items()}


def write(path, grams: dict[str, torch.Tensor], tokens: float = 1000.0, **others) -> None:
    tensors = dict(others)
    for name, gram in grams.items():
        tensors[f"{name}.gram"] = (gram * tokens).float().contiguous()
        tensors[f"{name}.sums"] = tensors[f"{name}.gram"].diag().nan_to_num().clamp(min=0).contiguous()
        tensors[f"{name}.counts"] = torch.tensor([tokens])
    modules = json.dumps({name: name for name in grams})
    save_file(tensors, path, metadata={"format": "nibble-statistics", "version": "1", "modules": modules})


@pytest.fixture(scope="module")
def statistics(grams, tmp_path_factory):
    path = tmp_path_factory.mktemp("statistics") / "some.stats"
    write(path, grams)
    return path


def output_errors(folder, grams) -> dict[str, float]:
    """What each weight's products lose on such inputs, by the trace of (W - W')·H·(W - W')ᵀ."""
    plain = checkpoint.tensors(FIXTURE)
    found = {}
    for name, weight in checkpoint.four_bit_weights(checkpoint.tensors(folder)).items():
        difference = dequantized(weight, torch.float32).double() - plain[name].double()
        found[name] = ((difference @ grams[name]) * difference).sum().item()
    return found


def test_less_damage(nibble, reference, grams, statistics, tmp_path, capsys):
    """In no layer more than the search alone; the divergence from the original is a third of bitsandbytes' at most."""
    options = {
        "bitsandbytes": [], "search": ["--scale-search", "mse"],
        "weighted search": ["--scale-search", "mse", "--importance", statistics],
        "feedback": ["--feedback", statistics],
        "feedback with search": ["--feedback", statistics, "--scale-search", "mse"],
        "in stored order": ["--feedback", statistics, "--scale-search", "mse", "--feedback-order", "stored"],
        "feedback with positive": ["--feedback", statistics, "--scale-search", "positive"],
    }
    held_out = sequences(0, 60)
    with torch.no_grad():
        original = [torch.log_softmax(reference(ids).logits, -1) for ids in held_out]
    divergences, errors = {}, {}
    for name, arguments in options.items():
        folder = tmp_path / name.replace(" ", "-")
        nibble.quantize(FIXTURE, folder, *arguments)
        nibble.verify(folder)
        errors[name] = output_errors(folder, grams)
        nibble.json("convert", folder, "-o", f"{folder}-plain", "--dtype", "float32")
        model = transformers.AutoModelForCausalLM.from_pretrained(f"{folder}-plain", dtype=torch.float32)
        with torch.no_grad():
            mine = [torch.log_softmax(model(ids).logits, -1) for ids in held_out]
        pairs = zip(original, mine)
        divergences[name] = sum((a.exp() * (a - b)).sum().item() for a, b in pairs) / sum(ids.numel() for ids in held_out)
    shares = {name: value / divergences["bitsandbytes"] for name, value in divergences.items()}
    with capsys.disabled():
        print("\n  " + ", ".join(f"{name} {share:.3f}" for name, share in shares.items()))
    for name, error in errors["feedback with search"].items():
        assert error < errors["search"][name] < errors["bitsandbytes"][name], name
        assert errors["feedback"][name] < errors["bitsandbytes"][name], name
    assert shares["search"] <= 0.75
    assert shares["weighted search"] <= 0.65
    assert shares["feedback with search"] <= 0.35
    assert shares["feedback with search"] < shares["in stored order"] <= 0.35
    assert shares["feedback with positive"] <= 0.35
    assert shares["feedback"] <= 0.45


def test_loads_and_repeats(nibble, statistics, tmp_path):
    """In stock bitsandbytes; the same bytes with any number of workers, and when `verify` makes it again."""
    options = ["--feedback", statistics, "--scale-search", "mse"]
    nibble.quantize(FIXTURE, tmp_path / "one", *options, "--jobs", "1")
    nibble.quantize(FIXTURE, tmp_path / "many", *options, "--jobs", "7")
    one, many = (checkpoint.tensors(tmp_path / name) for name in ("one", "many"))
    assert one.keys() == many.keys() and all(same(one[name], many[name]) for name in one)
    nibble.verify(tmp_path / "one", "--against", FIXTURE, "--feedback", statistics)
    report = nibble.json("verify", tmp_path / "one", "--against", FIXTURE)
    assert report["ok"] and any("--feedback" in note for note in report["notChecked"])
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "one", dtype=torch.bfloat16)
    weight = model.model.layers[0].self_attn.q_proj.weight
    expected = dequantized(checkpoint.four_bit_weights(one)[WEIGHT], torch.bfloat16)
    assert same(functional.dequantize_4bit(weight.data, weight.quant_state) + 0, expected)
    with torch.no_grad():
        assert model(torch.arange(3, 20)[None]).logits.isfinite().all()


def test_order_and_damping(nibble, grams, statistics, tmp_path):
    """Each makes another file, which the manifest tells enough of to make it again; without feedback they have no effect."""
    written = set()
    for number, options in enumerate(([], ["--feedback-order", "stored"], ["--damping", "0.1"])):
        out = tmp_path / str(number)
        nibble.quantize(FIXTURE, out, "--feedback", statistics, *options)
        nibble.verify(out, "--against", FIXTURE, "--feedback", statistics)
        written.add((out / "model.safetensors").read_bytes())
    assert len(written) == 3
    # No damping where it is needed: as little as makes a factor.
    path = tmp_path / "dead.stats"
    write(path, grams | {WEIGHT: torch.diag(torch.arange(grams[WEIGHT].shape[0], dtype=torch.float64))})
    nibble.quantize(FIXTURE, tmp_path / "undamped", "--feedback", path, "--damping", "0")
    for options, part in [
        (["--feedback", statistics, "--scale-search", "mse", "--importance", statistics], "has no effect"),
        (["--feedback-order", "stored"], "goes with '--feedback'"), (["--damping", "0.1"], "goes with '--feedback'"),
        (["--feedback", statistics, "--damping", "2"], "not a number from 0 to 1"),
        (["--feedback", statistics, "--feedback-order", "storde"], "did you mean 'stored'"),
    ]:
        assert part in nibble.run("quantize", FIXTURE, "-o", tmp_path / "no", *options, expect=USAGE).stderr


def test_what_was_not_measured(nibble, grams, tmp_path):
    path = tmp_path / "some.stats"
    write(path, {name: gram for name, gram in grams.items() if name != WEIGHT})
    options = ["--scale-search", "mse", "--feedback", path]
    result = nibble.run("quantize", FIXTURE, "-o", tmp_path / "out", *options)
    assert f"no correlations for 1 weight, whose errors are not made good: '{WEIGHT}'" in result.stderr
    nibble.quantize(FIXTURE, tmp_path / "plain", "--scale-search", "mse")
    mine, plain = (checkpoint.tensors(tmp_path / name) for name in ("out", "plain"))
    assert same(mine[WEIGHT], plain[WEIGHT])
    result = nibble.run("quantize", FIXTURE, "-o", tmp_path / "wide", *options, "--block-size", "512")
    assert "whose rows end inside a block" in result.stderr
    nibble.run("quantize", FIXTURE, "-o", tmp_path / "no", *options, "--block-size", "4096", expect=UNSUPPORTED)
    # Without a search, what is not made good is as it would be without: bitsandbytes' own.
    nibble.quantize(FIXTURE, tmp_path / "half", "--feedback", path)
    nibble.quantize(FIXTURE, tmp_path / "default")
    mine, plain = (checkpoint.tensors(tmp_path / name) for name in ("half", "default"))
    for suffix in ("", ".absmax", ".nested_absmax"):
        assert same(mine[WEIGHT + suffix], plain[WEIGHT + suffix])


def test_few_tokens(nibble, grams, tmp_path):
    path = tmp_path / "some.stats"
    write(path, grams, tokens=300.0)
    result = nibble.run("quantize", FIXTURE, "-o", tmp_path / "out", "--feedback", path)
    assert "fewer tokens than 4 weights have columns" in result.stderr


def test_inputs_that_are_dependent(nibble, grams, tmp_path):
    """Fewer tokens than columns, a column that is always zero, and one that is another's double."""
    path, made = tmp_path / "some.stats", dict(grams)
    columns = made[WEIGHT].shape[0]
    rows = torch.randn(5, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rows[:, 3] = 0
    rows[:, 8] = 2 * rows[:, 7]
    made[WEIGHT] = rows.T @ rows
    write(path, made)
    nibble.quantize(FIXTURE, tmp_path / "out", "--scale-search", "mse", "--feedback", path)
    nibble.verify(tmp_path / "out")
    nibble.quantize(FIXTURE, tmp_path / "plain", "--scale-search", "mse")
    mine, plain = (output_errors(tmp_path / name, made)[WEIGHT] for name in ("out", "plain"))
    assert mine < 0.2 * plain


def test_refused(nibble, grams, tmp_path):
    path = tmp_path / "some.stats"

    def refused(code: int, text: str, *options) -> None:
        result = nibble.run("quantize", FIXTURE, "-o", tmp_path / "no", "--feedback", path, *options, expect=code)
        assert text in result.stderr, result.stderr
        assert not (tmp_path / "no").exists()

    write(path, grams)
    refused(USAGE, "exclude each other", "--no-double-quant")
    refused(USAGE, "option '--feedback' is for NF4 and FP4", "--scheme", "mlx-q4")
    columns = grams[WEIGHT].shape[0]
    for gram, text in [
        (grams[WEIGHT] * float("nan"), "allowed are finite numbers"),
        (-grams[WEIGHT], "allowed are finite numbers"),
        (torch.eye(columns) - 100 * torch.ones(columns, columns) / columns, "positive definite"),
        (torch.zeros(columns, columns), "no input that is not zero"),
    ]:
        write(path, grams | {WEIGHT: gram.double()})
        refused(REJECTED, text)
    write(path, grams | {WEIGHT: torch.eye(columns + 1).double()})
    refused(REJECTED, "is F32 of")
    # An input that is shared by weights of another width: told before anything is written, whatever comes first.
    narrow = "model.layers.0.mlp.down_proj.weight"
    write(path, grams)
    tensors = checkpoint.shard_tensors(path)
    modules = json.dumps({name: WEIGHT for name in grams})
    save_file(tensors, path, metadata={"format": "nibble-statistics", "version": "1", "modules": modules})
    refused(REJECTED, f"needed for '{narrow}'")
    refused(REJECTED, f"needed for '{narrow}'", "--dry-run")
    write(path, {"other.weight": grams[WEIGHT]})
    refused(REJECTED, "another model's")
    path.write_bytes(path.read_bytes()[:1000])
    refused(REJECTED, "some.stats")
    path.unlink()
    refused(66, "some.stats")
