"""`nibble convert`: 4 bits back to plain numbers, other dtypes, other shards."""

import pytest
import torch
import transformers
from bitsandbytes import functional

import checkpoint
import oracle
from architectures import case
from checkpoint import same
from tool import REJECTED

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def dequantized(weight, dtype):
    """bitsandbytes' own dequantization of what is in the file, into the dtype asked for.

    Of the flattened weight: given rows that are no multiple of the block size, its CPU kernel takes the wrong
    block's absmax. FP4's code 8 is +0, as in its table and its vector path; its scalar path answers −0.
    """
    parts = dict(weight.parts)
    text = torch.tensor(list(weight.text.encode()), dtype=torch.uint8)
    parts[f"quant_state.bitsandbytes__{weight.kind}"] = text
    state = functional.QuantState.from_dict(parts, device=torch.device("cpu"))
    shape, state.shape, state.dtype = state.shape, torch.Size([state.shape.numel()]), dtype
    return functional.dequantize_4bit(weight.packed, state).reshape(shape) + 0


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme", [
    ("nf4", 64, True), ("nf4", 64, False), ("nf4", 256, True), ("nf4", 4096, True),
    ("fp4", 64, True), ("fp4", 32, False), ("fp4", 2048, False),
], ids=str)
@pytest.mark.parametrize("model", ["llama", "llama-odd"])
def test_dequantize(model, scheme, dtype, nibble, tmp_path):
    kind, block_size, double = scheme
    source, four, plain = tmp_path / "source", tmp_path / "four", tmp_path / "plain"
    case(model).create().save_pretrained(source)
    options = [] if double else ["--no-double-quant"]
    nibble.quantize(source, four, "--scheme", kind, "--block-size", block_size, *options)
    nibble.json("convert", four, "-o", plain, "--dtype", dtype)
    nibble.verify(plain)

    quantized, result = checkpoint.tensors(four), checkpoint.tensors(plain)
    weights = checkpoint.four_bit_weights(quantized)
    assert len(weights) == 14
    assert set(result) == set(checkpoint.tensors(source))
    for name, tensor in result.items():
        if name in weights:
            assert same(tensor, dequantized(weights[name], DTYPES[dtype])), name
        else:
            assert same(tensor, quantized[name].to(DTYPES[dtype])), name
    config = checkpoint.config(plain)
    assert "quantization_config" not in config
    assert config["dtype"] == dtype
    loaded, information = transformers.LlamaForCausalLM.from_pretrained(plain, output_loading_info=True)
    assert not any(information.values()), information
    assert loaded.dtype == DTYPES[dtype]


def test_dequantize_keeps_the_dtype_of_origin(nibble, tmp_path):
    """Without --dtype a weight comes back in the dtype that it was quantized from."""
    source, four, plain = tmp_path / "source", tmp_path / "four", tmp_path / "plain"
    case("qwen3").create().save_pretrained(source)
    nibble.quantize(source, four)
    nibble.json("convert", four, "-o", plain)
    weights, result = checkpoint.four_bit_weights(checkpoint.tensors(four)), checkpoint.tensors(plain)
    assert len(weights) == 14
    assert {tensor.dtype for tensor in result.values()} == {torch.float16}
    assert all(same(result[name], dequantized(weight, torch.float16)) for name, weight in weights.items())


def test_conv1d_comes_back_transposed(nibble, tmp_path):
    """GPT-2's weights are [in, out] in the file, [out, in] while quantized, and [in, out] again after."""
    source, four, plain = tmp_path / "source", tmp_path / "four", tmp_path / "plain"
    case("gpt2").create().save_pretrained(source)
    nibble.quantize(source, four)
    nibble.json("convert", four, "-o", plain)
    weights, result = checkpoint.four_bit_weights(checkpoint.tensors(four)), checkpoint.tensors(plain)
    assert len(weights) == 8
    for name, tensor in checkpoint.tensors(source).items():
        assert result[name].shape == tensor.shape, name
        if name in weights:
            assert same(result[name].T.contiguous(), dequantized(weights[name], tensor.dtype)), name
    rows = nibble.json("inspect", four, "--stats", "--against", source)["tensors"]
    errors = [row["stats"]["error"]["relativeMse"] for row in rows if row["scheme"]]
    assert len(errors) == 8 and max(errors) < 0.02, "a square weight was compared without being transposed"
    loaded, information = transformers.GPT2LMHeadModel.from_pretrained(plain, output_loading_info=True)
    assert not any(information.values()), information


def test_what_bitsandbytes_saved_comes_back_too(nibble, tmp_path):
    """A checkpoint that Nibble did not write: natural-length quant states, no manifest."""
    source, four, plain = tmp_path / "source", tmp_path / "four", tmp_path / "plain"
    case("llama").create().save_pretrained(source)
    settings = oracle.bitsandbytes_config()
    transformers.LlamaForCausalLM.from_pretrained(source, quantization_config=settings).save_pretrained(four)
    report = nibble.verify(four)
    assert report["notChecked"], "without a manifest something must be named as not checked"
    nibble.json("convert", four, "-o", plain, "--dtype", "float32")
    weights, result = checkpoint.four_bit_weights(checkpoint.tensors(four)), checkpoint.tensors(plain)
    assert len(weights) == 14
    assert all(same(result[name], dequantized(weight, torch.float32)) for name, weight in weights.items())


@pytest.mark.parametrize("size", ["40KB", "5GB"])
def test_reshard(size, nibble, tmp_path):
    source, middle, back = tmp_path / "source", tmp_path / "middle", tmp_path / "back"
    case("qwen2-moe").create().save_pretrained(source, max_shard_size="60KB")
    nibble.json("convert", source, "-o", middle, "--max-shard-size", size)
    nibble.json("convert", middle, "-o", back)
    original = checkpoint.tensors(source)
    for folder in (middle, back):
        result = checkpoint.tensors(folder)
        assert set(result) == set(original)
        assert all(same(result[name], tensor) for name, tensor in original.items())
    assert (middle / "model.safetensors.index.json").exists() == (size == "40KB")
    assert (back / "model.safetensors").exists()


@pytest.mark.parametrize("target", DTYPES)
@pytest.mark.parametrize("origin", DTYPES)
def test_cast(origin, target, nibble, tmp_path):
    """torch's rounding, including subnormal results and numbers at the edge of the range."""
    source, out = tmp_path / "source", tmp_path / "out"
    model = case("llama").create().to(DTYPES[origin])
    with torch.no_grad():
        weight = model.model.layers[0].mlp.up_proj.weight
        weight.copy_(torch.cat([torch.logspace(-40, 4, 4096), -torch.logspace(-9, 4.8, 4096)]).reshape(weight.shape))
    model.save_pretrained(source)
    nibble.json("convert", source, "-o", out, "--dtype", target)
    result = checkpoint.tensors(out)
    for name, tensor in checkpoint.tensors(source).items():
        assert same(result[name], tensor.to(DTYPES[target])), name
    assert checkpoint.config(out)["dtype"] == target


def test_float16_overflow_names_the_tensor(nibble, tmp_path):
    source = tmp_path / "source"
    model = case("llama").create()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = 70000
    model.save_pretrained(source)
    result = nibble.run("convert", source, "-o", tmp_path / "out", "--dtype", "float16", expect=REJECTED)
    assert "model.layers.1.mlp.up_proj.weight" in result.stderr
    assert not (tmp_path / "out").exists()
