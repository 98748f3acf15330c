"""Sources that are quantized already: named, refused, and requantized only on demand."""

import json
import shutil

import pytest

import checkpoint
import oracle
from architectures import case
from tool import UNSUPPORTED

METHODS = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True},
    "fp8": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False},
    "compressed-tensors": {"quant_method": "compressed-tensors", "format": "pack-quantized"},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refusals") / "source"
    case("llama").create().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_refused_by_name(method, source, nibble, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    shutil.copy(source / "model.safetensors", model)
    settings = checkpoint.config(source) | {"quantization_config": METHODS[method]}
    (model / "config.json").write_text(json.dumps(settings))
    result = nibble.run("quantize", model, "-o", tmp_path / "out", expect=UNSUPPORTED)
    assert method in result.stderr.lower()
    assert result.stderr.startswith("nibble: error: ") and result.stderr.count("\n") == 1, result.stderr
    assert not (tmp_path / "out").exists()


def test_requantize(source, nibble, tmp_path):
    """NF4 to NF4 with other options is refused, and with --force-requantize is what its numbers quantize to."""
    first, second, plain = tmp_path / "first", tmp_path / "second", tmp_path / "plain"
    nibble.quantize(source, first)
    result = nibble.run("quantize", first, "-o", second, "--block-size=128", expect=UNSUPPORTED)
    assert "bitsandbytes" in result.stderr.lower() and "--force-requantize" in result.stderr
    nibble.quantize(first, second, "--block-size=128", "--force-requantize")
    nibble.verify(second)
    nibble.json("convert", first, "-o", plain)
    assert oracle.check_checkpoint(second, plain, block_size=128) == 14
