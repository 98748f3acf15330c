"""`--target-bits`: a budget of bits, spent on the modules that lose most for each byte."""

import itertools
import json

import gguf
import pytest
import torch
import transformers
from bitsandbytes import functional

import checkpoint
from checkpoint import same
from test_feedback import grams, reference, write  # noqa: F401
from tool import ROOT, USAGE

FIXTURE = ROOT / "fixtures" / "sql-llama"


def stored_bits(folder, names) -> float:
    """Bits of each weight of some modules, statistics and all."""
    found = checkpoint.tensors(folder)
    size = sum(
        tensor.nbytes for name, tensor in found.items()
        if any(name == each or name.startswith(f"{each}.") for each in names))
    return 8 * size / sum(checkpoint.tensors(FIXTURE)[name].numel() for name in names)


def linear() -> dict[str, torch.Tensor]:
    found = checkpoint.tensors(FIXTURE)
    return {name: tensor for name, tensor in found.items() if "_proj.weight" in name}


def losses(columns=None) -> dict[str, float]:
    """What bitsandbytes loses of each weight, relative to the weight."""
    result = {}
    for name, weight in linear().items():
        packed, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
        error = (functional.dequantize_4bit(packed, state).float() - weight.float()) ** 2
        means = 1 if columns is None else columns[name]
        result[name] = ((error * means).sum() / (weight.float() ** 2 * means).sum()).item()
    return result


def best(losses: dict[str, float], extra: int) -> float:
    """The most that can be saved: of weights of one size those that lose most, over every number of each size."""
    sizes = {}
    for name, weight in linear().items():
        sizes.setdefault(weight.numel(), []).append(losses[name])
    groups = [(size, list(itertools.accumulate(sorted(group, reverse=True), initial=0))) for size, group in sizes.items()]
    result = 0
    for counts in itertools.product(*(range(len(sums)) for _, sums in groups)):
        bits = sum(count * size * (16 - 4.125) for count, (size, _) in zip(counts, groups))
        if bits <= extra:
            result = max(result, sum(sums[count] for count, (_, sums) in zip(counts, groups)))
    return result


@pytest.mark.parametrize("bits", [4.6, 5.5, 8.0])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_near_the_best(bits, weighted, nibble, tmp_path, grams):  # noqa: F811
    """Within the budget, and short of the best choice of all by no more than one weight."""
    out, statistics = tmp_path / "out", tmp_path / "statistics"
    columns = {name: gram.diagonal().float() for name, gram in grams.items()} if weighted else None
    options = []
    if weighted:
        write(statistics, grams)
        options = ["--scale-search", "mse", "--importance", statistics]
    nibble.quantize(FIXTURE, out, "--target-bits", bits, *options)
    nibble.verify(out)
    nibble.verify(out, "--against", FIXTURE, *(options[2:] if weighted else []))
    names = list(linear())
    assert stored_bits(out, names) <= bits
    found = checkpoint.tensors(out)
    kept = {name for name in names if same(found[name], linear()[name])}
    assert {f"{name}" for name in json.loads((out / "nibble-manifest.json").read_text())["options"]["keptForTargetBits"]} == {
        name.removesuffix(".weight") for name in kept}
    skipped = checkpoint.config(out)["quantization_config"]["llm_int8_skip_modules"]
    assert {name.removesuffix(".weight") for name in kept} <= set(skipped)
    if not weighted:
        lost = losses(columns)
        total = sum(weight.numel() for weight in linear().values())
        # What scales take beside the codes, and names and tables in the header of each, is the same for either.
        floor = total * stored_bits_plain(nibble, tmp_path)
        saved = sum(lost[name] for name in kept)
        assert saved >= best(lost, bits * total - floor) - max(lost.values())


def stored_bits_plain(nibble, tmp_path) -> float:
    nibble.quantize(FIXTURE, tmp_path / "plain")
    return stored_bits(tmp_path / "plain", list(linear()))


def test_loads(nibble, tmp_path, reference):  # noqa: F811
    """transformers leaves the modules alone, and the model is nearer to the original than without."""
    ids = torch.arange(3, 60)[None]
    logits = {}
    with torch.no_grad():
        original = reference(ids).logits.float()
        for bits in (None, 5.5):
            out = tmp_path / f"out-{bits}"
            nibble.quantize(FIXTURE, out, *(["--target-bits", bits] if bits else []))
            model = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16)
            logits[bits] = model(ids).logits.float()
            if bits:
                kept = json.loads((out / "nibble-manifest.json").read_text())["options"]["keptForTargetBits"]
                assert kept
                for name in kept:
                    assert type(model.get_submodule(name)) is torch.nn.Linear
    assert (logits[5.5] - original).norm() < (logits[None] - original).norm()


def test_workers_do_not_matter(nibble, tmp_path):
    written = []
    for jobs in (1, 3):
        out = tmp_path / f"out-{jobs}"
        nibble.quantize(FIXTURE, out, "--target-bits", 6, "--jobs", jobs)
        written.append((out / "model.safetensors").read_bytes())
    assert written[0] == written[1]


def test_refused(nibble, tmp_path):
    out = tmp_path / "out"
    for bits, part in [
        ("3", "less than what the weights take already"), ("nan", "not a number from"), ("0x8", "not a number from"),
        ("33", "not a number from"), ("", "needs a value"), ("-4", "not a number from"), ("5f0", "not a number from"), ("1e999", "not a number from"),
    ]:
        failed = nibble.run("quantize", FIXTURE, "-o", out, f"--target-bits={bits}", expect=USAGE).stderr
        assert part in failed
    assert not out.exists()
    nothing = ["quantize", FIXTURE, "-o", f"{out}.gguf", "--scheme", "f16", "--target-bits", "5"]
    assert "has no effect" in nibble.run(*nothing, expect=USAGE).stderr
    nothing = ["quantize", FIXTURE, "-o", out, "--keep", "*", "--target-bits", "5"]
    assert "has no effect" in nibble.run(*nothing, expect=USAGE).stderr
    failed = nibble.run("quantize", FIXTURE, "-o", out, "--target-bits", "5", "--scheme", "mlx-q4", expect=USAGE).stderr
    assert "--target-bits" in failed


def gguf_types(path) -> dict[str, tuple[str, int, int]]:
    """For each matrix its type, bytes and values, as the gguf package reads them."""
    reader = gguf.GGUFReader(path)
    return {
        tensor.name: (tensor.tensor_type.name, int(tensor.n_bytes), int(tensor.n_elements))
        for tensor in reader.tensors if len(tensor.shape) > 1
    }


def relative_errors(nibble, path) -> float:
    rows = nibble.json("inspect", path, "--stats", "--against", FIXTURE)["tensors"]
    return sum(row["stats"]["error"]["relativeMse"] for row in rows if "error" in (row["stats"] or {}))


@pytest.mark.parametrize("options", [[], ["--pure"]], ids=["mixture", "pure"])
def test_types_are_raised(options, nibble, tmp_path):
    """No type has fewer bits than the mixture gave it, all together have no more than asked for, and the loss is less."""
    plain, out = tmp_path / "plain.gguf", tmp_path / "out.gguf"
    command = ["quantize", FIXTURE, "--scheme", "q4_k_m", *options]
    nibble.run(*command, "-o", plain)
    nibble.run(*command, "-o", out, "--target-bits", 5.5)
    nibble.verify(out)
    report = nibble.verify(out, "--against", FIXTURE)
    assert not report["notChecked"]
    before, after = gguf_types(plain), gguf_types(out)
    bits = {name: 8 * size / count for name, (_, size, count) in after.items()}
    assert all(bits[name] >= 8 * size / count for name, (_, size, count) in before.items())
    assert 5.3 < 8 * sum(size for _, size, _ in after.values()) / sum(count for *_, count in after.values()) <= 5.5
    assert relative_errors(nibble, out) < 0.7 * relative_errors(nibble, plain)


def test_better_than_the_mixture(nibble, tmp_path):
    """At the size of llama.cpp's mixture, which is made for models of other shapes."""
    plain, out = tmp_path / "plain.gguf", tmp_path / "out.gguf"
    nibble.run("quantize", FIXTURE, "-o", plain, "--scheme", "q4_k_m")
    types = gguf_types(plain)
    bits = 8 * sum(size for _, size, _ in types.values()) / sum(count for *_, count in types.values())
    nibble.run("quantize", FIXTURE, "-o", out, "--scheme", "q4_k_m", "--pure", "--target-bits", f"{bits + 1e-6:.6f}")
    assert out.stat().st_size <= plain.stat().st_size
    assert relative_errors(nibble, out) < relative_errors(nibble, plain)


def test_too_few_bits_for_a_file(nibble, tmp_path):
    failed = nibble.run(
        "quantize", FIXTURE, "-o", tmp_path / "no.gguf", "--scheme", "q4_0", "--target-bits", "4.5", expect=USAGE)
    assert "less than what the tensors take already" in failed.stderr and not (tmp_path / "no.gguf").exists()
