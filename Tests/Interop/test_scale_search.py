"""`--scale-search`: scales of less error, signed ones too, in files that stock bitsandbytes loads."""

import json

import gguf
import numpy as np
import peft
import pytest
import torch
import transformers
from bitsandbytes import functional
from safetensors.torch import save_file

import checkpoint
from checkpoint import same
from test_convert import dequantized
from tool import DIFFERENT, REJECTED, ROOT, UNSUPPORTED, USAGE

FIXTURE = ROOT / "fixtures" / "sql-llama"
KINDS = ["mse", "positive"]
WEIGHT = "model.layers.0.self_attn.q_proj.weight"


def scales(weight) -> torch.Tensor:
    """One of each block, as they are read back."""
    if "nested_absmax" not in weight.parts:
        return weight.parts["absmax"]
    nested = weight.parts["nested_absmax"].repeat_interleave(256)[: weight.parts["absmax"].numel()]
    return weight.parts["nested_quant_map"][weight.parts["absmax"].long()] * nested + weight.offset


def errors(folder, source, importance=None) -> dict[str, tuple[float, float]]:
    """For each weight in 4 bits: its squared error as bitsandbytes dequantizes it, and that of bitsandbytes' own."""
    found, plain = checkpoint.tensors(folder), checkpoint.tensors(source)
    result = {}
    for name, weight in checkpoint.four_bit_weights(found).items():
        original = plain[name].float()
        packed, state = functional.quantize_4bit(
            plain[name], blocksize=weight.state["blocksize"], quant_type=weight.kind,
            compress_statistics="nested_absmax" in weight.parts)
        theirs = functional.dequantize_4bit(packed, state).float()
        mine = dequantized(weight, torch.float32)
        columns = 1 if importance is None else torch.tensor(importance[name])
        result[name] = tuple((((each - original) ** 2) * columns).sum().item() for each in (mine, theirs))
    return result


@pytest.mark.kernels
@pytest.mark.parametrize("options", [[], ["--no-double-quant"], ["--block-size", "256"]], ids=["double", "plain", "256"])
@pytest.mark.parametrize("scheme", ["nf4", "fp4"])
@pytest.mark.parametrize("kind", KINDS)
def test_less_error(kind, scheme, options, nibble, tmp_path):
    """In no weight more than bitsandbytes', in all together the share that it is for; positive where it says so."""
    out = tmp_path / "out"
    nibble.quantize(FIXTURE, out, "--scheme", scheme, "--scale-search", kind, *options)
    nibble.verify(out)
    nibble.verify(out, "--against", FIXTURE)
    found = errors(out, FIXTURE)
    assert found and all(mine < theirs for mine, theirs in found.values())
    share = sum(mine for mine, _ in found.values()) / sum(theirs for _, theirs in found.values())
    if scheme == "nf4" and options != ["--block-size", "256"]:
        assert share <= (0.82 if kind == "mse" else 0.865), share
    signs = torch.cat([scales(weight) for weight in checkpoint.four_bit_weights(checkpoint.tensors(out)).values()])
    assert signs.min() >= 0 if kind == "positive" or scheme == "fp4" else signs.min() < 0 < signs.max()
    manifest = json.loads((out / "nibble-manifest.json").read_text())
    assert manifest["options"]["scaleSearch"] == kind


def test_loads_everywhere(nibble, tmp_path):
    """transformers with bitsandbytes: logits are those of the dequantized weights, gradients flow to an adapter, what it
    saves again is the same, and merging dequantizes the same values."""
    out, plain, again = tmp_path / "out", tmp_path / "plain", tmp_path / "again"
    nibble.quantize(FIXTURE, out, "--scale-search", "mse")
    nibble.json("convert", out, "-o", plain)
    four = checkpoint.four_bit_weights(checkpoint.tensors(out))
    values = checkpoint.tensors(plain)
    for name, weight in four.items():
        # A negative scale makes zeros negative.
        assert same(dequantized(weight, torch.bfloat16), values[name] + 0), name

    model = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16)
    reference = transformers.AutoModelForCausalLM.from_pretrained(plain, dtype=torch.bfloat16)
    ids = torch.arange(3, 35)[None]
    with torch.no_grad():
        for length in (32, 1):
            mine, theirs = model(ids[:, :length]).logits.float(), reference(ids[:, :length]).logits.float()
            # A single row goes by gemv, which adds in another order than a product of matrices: half a unit of bfloat16
            # in each of a few additions.
            assert (mine - theirs).abs().max() <= 2**-5 * theirs.abs().max()
    # Of what it has loaded in 4 bits it does not know the way back to other names, of which there are none here.
    model.save_pretrained(again, save_original_format=False)
    mine, theirs = checkpoint.tensors(out), checkpoint.tensors(again)
    for name in four:
        assert same(mine[name], theirs[name]), name
        assert same(mine[f"{name}.absmax"], theirs[f"{name}.absmax"]), name

    tuned = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    loss = tuned(ids, labels=ids).loss
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tuned.parameters() if p.requires_grad)


def test_merge(nibble, tmp_path):
    """In one pass what two steps give."""
    adapter = ROOT / "fixtures" / "sql-llama-dialect"
    nibble.json("merge", FIXTURE, adapter, "-o", tmp_path / "one", "--scheme", "nf4", "--scale-search", "mse")
    nibble.json("merge", FIXTURE, adapter, "-o", tmp_path / "merged")
    nibble.quantize(tmp_path / "merged", tmp_path / "two", "--scale-search", "mse")
    mine, theirs = checkpoint.tensors(tmp_path / "one"), checkpoint.tensors(tmp_path / "two")
    assert mine.keys() == theirs.keys() and all(same(mine[name], theirs[name]) for name in theirs)
    for out in ("no", "no.gguf"):
        nibble.run("merge", FIXTURE, adapter, "-o", tmp_path / out, "--scale-search", "mse", expect=USAGE)


def test_split(nibble, tmp_path):
    """A copy in other files has no options in its manifest: its scales are not called damage."""
    nibble.quantize(FIXTURE, tmp_path / "one", "--scale-search", "mse")
    nibble.json("split", tmp_path / "one", "-o", tmp_path / "many", "--max-shard-size", "500KB")
    report = nibble.json("verify", tmp_path / "many", "--against", FIXTURE)
    assert report["ok"] and any("the scales were searched" in note for note in report["notChecked"])


@pytest.mark.parametrize("options", [[], ["--no-double-quant"]], ids=["double", "plain"])
def test_greatest_values(options, nibble, tmp_path):
    """What float16 has no number for does not come out of weights that it holds."""
    source = tmp_path / "source"
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2, vocab_size=32))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.sign(parameter) * 65504 * torch.rand(parameter.shape).round())
    model.half().save_pretrained(source)
    nibble.quantize(source, tmp_path / "out", "--scale-search", "mse", *options)
    nibble.verify(tmp_path / "out")
    nibble.json("convert", tmp_path / "out", "-o", tmp_path / "plain")
    assert all(tensor.isfinite().all() for tensor in checkpoint.tensors(tmp_path / "plain").values())


# --- importance ------------------------------------------------------------------------------------


def means() -> dict[str, np.ndarray]:
    """Of each linear layer's inputs; those that share an input have the same."""
    generator = np.random.default_rng(7)
    found = {}
    for name, tensor in checkpoint.tensors(FIXTURE).items():
        if "_proj" in name:
            key = name.rsplit(".", 2)[0] + str(tensor.shape[1])
            found.setdefault(key, np.exp(2 * generator.standard_normal(tensor.shape[1])).astype(np.float32))
    return {
        name: found[name.rsplit(".", 2)[0] + str(tensor.shape[1])]
        for name, tensor in checkpoint.tensors(FIXTURE).items() if "_proj" in name
    }


def write_statistics(path, values: dict[str, np.ndarray], tokens: float = 8.0, **metadata) -> None:
    tensors, modules = {}, {}
    for name, each in values.items():
        key = name.removesuffix(".weight")
        modules[name] = key
        tensors[f"{key}.sums"] = torch.tensor(each) * tokens
        tensors[f"{key}.counts"] = torch.tensor([tokens])
    text = {"format": "nibble-statistics", "version": "1", "modules": json.dumps(modules)} | metadata
    save_file(tensors, path, metadata=text)


def write_imatrix(path, values: dict[str, np.ndarray], tokens: float = 8.0) -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 64)
    writer = gguf.GGUFWriter(path, "")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["some.txt"])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, each in values.items():
        own = names.get_name(name, try_suffixes=[".weight"])
        writer.add_tensor(own + ".in_sum2", each * np.float32(tokens))
        writer.add_tensor(own + ".counts", np.array([tokens], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_importance(nibble, tmp_path):
    """The weighted error is less than without; both kinds of file give the same bytes; `verify` makes it again."""
    values = means()
    statistics, matrix = tmp_path / "some.stats", tmp_path / "some.imatrix"
    write_statistics(statistics, values)
    write_imatrix(matrix, values)
    for name, options in {
        "plain": [], "statistics": ["--importance", statistics], "matrix": ["--imatrix", matrix],
    }.items():
        nibble.quantize(FIXTURE, tmp_path / name, "--scale-search", "mse", *options)
        nibble.verify(tmp_path / name)
    plain, weighted = (errors(tmp_path / name, FIXTURE, values) for name in ("plain", "statistics"))
    assert all(weighted[name][0] < plain[name][0] for name in plain)
    assert sum(each[0] for each in weighted.values()) < 0.8 * sum(each[0] for each in plain.values())
    mine, theirs = (checkpoint.tensors(tmp_path / name) for name in ("statistics", "matrix"))
    assert all(same(mine[name], theirs[name]) for name in theirs)

    nibble.verify(tmp_path / "matrix", "--against", FIXTURE, "--importance", matrix)
    report = nibble.json("verify", tmp_path / "matrix", "--against", FIXTURE)
    assert report["ok"] and any("--importance" in note and "some.imatrix" in note for note in report["notChecked"])
    write_statistics(statistics, {name: each[::-1].copy() for name, each in values.items()})
    report = nibble.json(
        "verify", tmp_path / "statistics", "--against", FIXTURE, "--importance", statistics, expect=DIFFERENT)
    assert report["problems"]


def test_what_was_not_measured(nibble, tmp_path):
    """Counts alike, and is named; nothing at all is another model's."""
    values, statistics = means(), tmp_path / "some.stats"
    write_statistics(statistics, {name: each for name, each in values.items() if name != WEIGHT})
    result = nibble.run(
        "quantize", FIXTURE, "-o", tmp_path / "out", "--scale-search", "mse", "--importance", statistics)
    assert f"has not measured 1 weight, whose columns count alike: '{WEIGHT}'" in result.stderr
    nibble.quantize(FIXTURE, tmp_path / "plain", "--scale-search", "mse")
    mine, plain = (checkpoint.tensors(tmp_path / name) for name in ("out", "plain"))
    assert same(mine[WEIGHT], plain[WEIGHT])
    write_statistics(statistics, {"other.weight": values[WEIGHT]})
    result = nibble.run(
        "quantize", FIXTURE, "-o", tmp_path / "no", "--scale-search", "mse", "--importance", statistics, expect=REJECTED)
    assert "another model's" in result.stderr and not (tmp_path / "no").exists()


def test_refused(nibble, tmp_path):
    values, path = means(), tmp_path / "some.stats"

    def refused(code: int, text: str, *options) -> None:
        arguments = options or ["--scale-search", "mse", "--importance", path]
        result = nibble.run("quantize", FIXTURE, "-o", tmp_path / "no", *arguments, expect=code)
        assert text in result.stderr, result.stderr
        assert not (tmp_path / "no").exists()

    write_statistics(path, values)
    refused(USAGE, "name that, too", "--importance", path)
    refused(USAGE, "'most' is not one of mse, positive", "--scale-search", "most")
    refused(USAGE, "option '--scale-search' is for NF4 and FP4", "--scheme", "mlx-q4", "--scale-search", "mse")
    result = nibble.run(
        "quantize", FIXTURE, "-o", tmp_path / "no.gguf", "--scheme", "q4_k_m", "--importance", path, expect=UNSUPPORTED)
    assert "takes the importance matrix that it writes" in result.stderr
    write_statistics(path, values | {WEIGHT: values[WEIGHT][:-1].copy()})
    refused(REJECTED, f"some.stats: tensor '{WEIGHT}': has {len(values[WEIGHT]) - 1} columns")
    for bad in (-1, float("nan"), float("inf")):
        write_statistics(path, values | {WEIGHT: np.array([bad] + [1] * (len(values[WEIGHT]) - 1), np.float32)})
        refused(REJECTED, "allowed are sums of squares")
    write_statistics(path, values, version="2")
    refused(UNSUPPORTED, "version '2'")
    write_statistics(path, values)
    data = path.read_bytes()
    for part in (b"", data[:100], data[:-1]):
        path.write_bytes(part)
        refused(REJECTED, "some.stats")
    path.unlink()
    refused(66, "some.stats")
