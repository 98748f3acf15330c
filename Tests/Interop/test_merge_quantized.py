"""`nibble merge` onto a 4-bit base, into one, and onto a base that was 4-bit only while the adapter was trained."""

import json

import peft
import pytest
import torch
import transformers
from safetensors.torch import save_file

import adapters
import checkpoint
import oracle
import peft_merge
from adapters import row
from architectures import BF16
from checkpoint import same
from peft_merge import reference
from test_convert import dequantized

pytestmark = pytest.mark.kernels

# Name of the adapter's row, and of the scheme its base is quantized with.
BASES = [
    ("plain-bf16", "nf4"), ("plain-bf16", "fp4"), ("plain-f16", "nf4"), ("conv1d", "nf4"), ("dora", "nf4"),
    ("save-head", "nf4"), ("embedding-tied", "nf4"), ("lora-bias-bf16", "nf4"), ("experts-and-attention", "nf4"),
]

def transposed(name: str, bases) -> set[str]:
    return oracle.transposed_modules(row(name).load_base(bases[row(name).base]))


def write_dequantized(four, out, transposed: set[str]) -> None:
    """The 16-bit checkpoint that a 4-bit one stands for, by bitsandbytes' own dequantization."""
    found = checkpoint.tensors(four)
    weights = checkpoint.four_bit_weights(found)
    plain = {}
    for name, tensor in found.items():
        if name in weights:
            tensor = dequantized(weights[name], getattr(torch, weights[name].state["dtype"]))
            tensor = tensor.T if name in transposed else tensor
        if not checkpoint.is_companion(name):
            plain[name] = tensor.contiguous()
    config = checkpoint.config(four)
    del config["quantization_config"]
    out.mkdir()
    (out / "config.json").write_text(json.dumps(config))
    save_file(plain, out / "model.safetensors", metadata={"format": "pt"})


def check_same_checkpoint(folder, other) -> None:
    """Every tensor bit for bit, packed codes and statistics included, and the config."""
    mine, theirs = checkpoint.tensors(folder), checkpoint.tensors(other)
    assert set(mine) == set(theirs)
    for name, tensor in theirs.items():
        assert same(mine[name], tensor), name
    assert checkpoint.config(folder) == checkpoint.config(other)


@pytest.mark.parametrize("name, scheme", BASES, ids=str)
def test_four_bit_base(name, scheme, bases, nibble, tmp_path):
    """The default is a 16-bit checkpoint: what the 4 bits stand for, plus the update, rounded as PEFT does."""
    source, four, plain, out = bases[row(name).base], tmp_path / "four", tmp_path / "plain", tmp_path / "out"
    nibble.quantize(source, four, "--scheme", scheme)
    write_dequantized(four, plain, transposed(name, bases))
    adapter = row(name).create(source, tmp_path / "adapter")
    expected = reference(row(name), plain, adapter)
    nibble.json("merge", four, adapter, "-o", out)
    nibble.verify(out)
    assert "quantization_config" not in checkpoint.config(out)
    assert not any(checkpoint.is_companion(key) for key in checkpoint.tensors(out))
    model, information = row(name).auto_class.from_pretrained(out, dtype="auto", output_loading_info=True)
    assert not any(information.values()), information
    peft_merge.check_tensors(model.state_dict(), expected)


@pytest.mark.parametrize("name, scheme", BASES, ids=str)
def test_back_into_four_bits(name, scheme, bases, nibble, tmp_path):
    """Quantized again as `nibble quantize` would the 16-bit result, in the dtype that it was quantized from."""
    source, four, out = bases[row(name).base], tmp_path / "four", tmp_path / "out"
    nibble.quantize(source, four, "--scheme", scheme)
    adapter = row(name).create(source, tmp_path / "adapter")
    nibble.json("merge", four, adapter, "-o", out, "--scheme", scheme)
    nibble.verify(out)
    nibble.json("merge", four, adapter, "-o", tmp_path / "plain")
    nibble.quantize(tmp_path / "plain", tmp_path / "expected", "--scheme", scheme)
    check_same_checkpoint(out, tmp_path / "expected")

    quantized = oracle.check_checkpoint(out, tmp_path / "plain", transposed(name, bases), kind=scheme)
    before = checkpoint.four_bit_weights(checkpoint.tensors(four))
    after = checkpoint.four_bit_weights(checkpoint.tensors(out))
    assert before.keys() == after.keys() and quantized == len(after) > 0
    assert all(after[key].state["dtype"] == weight.state["dtype"] for key, weight in before.items())
    model, information = row(name).auto_class.from_pretrained(out, output_loading_info=True)
    assert not any(information.values()), information
    example = row(name).case.example(model.config, model.dtype)
    assert torch.isfinite(peft_merge.logits(model, example)).all()


@pytest.mark.parametrize("name", ["plain-bf16", "plain-f16", "conv1d", "save-head"])
def test_plain_base_into_four_bits(name, bases, nibble, tmp_path):
    source, out = bases[row(name).base], tmp_path / "out"
    adapter = row(name).create(source, tmp_path / "adapter")
    nibble.json("merge", source, adapter, "-o", out, "--scheme", "nf4")
    nibble.verify(out)
    nibble.json("merge", source, adapter, "-o", tmp_path / "plain")
    nibble.quantize(tmp_path / "plain", tmp_path / "expected")
    check_same_checkpoint(out, tmp_path / "expected")


@pytest.mark.parametrize("name", ["plain-bf16", "plain-f16", "conv1d", "dora", "save-head", "embedding-tied"])
def test_base_as_trained(name, bases, nibble, tmp_path):
    """QLoRA trains on what 4 bits leave of the base: merged onto that, from the 16-bit files alone."""
    source, four = bases[row(name).base], tmp_path / "four"
    adapter = row(name).create(source, tmp_path / "adapter")
    nibble.quantize(source, four)
    nibble.json("merge", four, adapter, "-o", tmp_path / "expected")
    nibble.json("merge", source, adapter, "-o", tmp_path / "out", "--base-as-trained", "nf4")
    nibble.verify(tmp_path / "out")
    check_same_checkpoint(tmp_path / "out", tmp_path / "expected")
    nibble.json("merge", source, adapter, "-o", tmp_path / "straight")
    straight, mine = checkpoint.tensors(tmp_path / "straight"), checkpoint.tensors(tmp_path / "out")
    assert sum(not same(straight[key], tensor) for key, tensor in mine.items()) == len(
        checkpoint.four_bit_weights(checkpoint.tensors(four)))


def test_base_as_trained_into_four_bits(bases, nibble, tmp_path):
    source, four = bases["llama"], tmp_path / "four"
    adapter = row("plain-bf16").create(source, tmp_path / "adapter")
    nibble.quantize(source, four)
    nibble.json("merge", four, adapter, "-o", tmp_path / "expected", "--scheme", "nf4")
    nibble.json("merge", source, adapter, "-o", tmp_path / "out", "--base-as-trained", "nf4", "--scheme", "nf4")
    check_same_checkpoint(tmp_path / "out", tmp_path / "expected")


def test_from_one_code_into_the_other(bases, nibble, tmp_path):
    """A base in NF4, a result in FP4: as merging into 16 bits and quantizing that."""
    nibble.quantize(bases["llama"], tmp_path / "four")
    adapter = row("plain-bf16").create(bases["llama"], tmp_path / "adapter")
    nibble.json("merge", tmp_path / "four", adapter, "-o", tmp_path / "out", "--scheme", "fp4")
    nibble.json("merge", tmp_path / "four", adapter, "-o", tmp_path / "plain")
    nibble.quantize(tmp_path / "plain", tmp_path / "expected", "--scheme", "fp4")
    check_same_checkpoint(tmp_path / "out", tmp_path / "expected")


@pytest.mark.parametrize("name", ["plain-bf16", "conv1d"])
def test_base_of_bitsandbytes_and_adapter_trained_on_it(name, bases, nibble, tmp_path):
    """Both files as a QLoRA run leaves them; the merged model computes what the 4-bit one with the adapter does."""
    source, four, out = bases[row(name).base], tmp_path / "four", tmp_path / "out"
    settings = oracle.bitsandbytes_config()
    transformers.AutoModelForCausalLM.from_pretrained(source, quantization_config=settings).save_pretrained(four)
    adapter = row(name).create(four, tmp_path / "adapter")
    with adapters.quiet():
        trained = peft.PeftModel.from_pretrained(row(name).load_base(four), adapter).eval()
    nibble.json("merge", four, adapter, "-o", out)
    nibble.verify(out)
    model = transformers.AutoModelForCausalLM.from_pretrained(out, dtype="auto").eval()
    example = row(name).case.example(model.config, BF16)
    error = oracle.relative_error(peft_merge.logits(model, example), peft_merge.logits(trained, example))
    assert error <= peft_merge.LOGIT_ERROR[BF16]
