"""`dequantize()`: the weight that 4-bit codes stand for, without torch and without bitsandbytes."""

import json
import os
import pathlib
import subprocess
import sys

import numpy
import pytest
import torch
from bitsandbytes import functional
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from safetensors.torch import save_file

import checkpoint as stored
import nibble
from test_python_open import flip, place
from tool import ROOT, Nibble

# Rows of a whole number of blocks, of half a block too many, of an odd number of values, of less than a block.
SHAPES = {"whole": (48, 128), "half": (40, 96), "odd": (33, 31), "short": (5, 3)}
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def weights(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Of many magnitudes, so that a block's maximum taken for another's is seen."""
    generator = torch.Generator().manual_seed(7)

    def values(shape):
        return torch.randn(shape, generator=generator) * torch.exp(2 * torch.randn(shape, generator=generator))

    return {f"{name}.weight": values(shape).to(dtype) for name, shape in SHAPES.items()}


def by_bitsandbytes(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    """What its own functions make of the file.

    Rows that do not end with a block its kernel for the CPU gets wrong (it begins a block with every row, which
    quantize_4bit does not); its portable implementation does not.
    """
    found = stored.tensors(folder)
    result = {}
    for name in stored.four_bit_weights(found):
        parts = {key.removeprefix(f"{name}."): value for key, value in found.items() if key.startswith(f"{name}.")}
        state = functional.QuantState.from_dict(parts, torch.device("cpu"))
        if state.shape[-1] % state.blocksize == 0:
            result[name] = functional.dequantize_4bit(found[name], state)
            continue
        absmax = state.absmax
        if state.nested:
            absmax = functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
        codes, levels = found[name].flatten().view(torch.uint8), functional.get_4bit_type(state.quant_type, "cpu")
        compute = getattr(_dequantize_4bit_compute, "_torchdynamo_orig_callable", _dequantize_4bit_compute)
        result[name] = compute(codes, absmax, levels, state.blocksize, state.shape, state.dtype)
    return result


@pytest.fixture(scope="module", params=DTYPES)
def source(request, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp(request.param)
    save_file(weights(DTYPES[request.param]), folder / "model.safetensors")
    return folder / "model.safetensors"


OPTIONS = {
    "default": [],
    "fp4": ["--scheme", "fp4"],
    "single": ["--no-double-quant"],
    "blocks of 32": ["--block-size", "32", "--scheme", "fp4"],
    "blocks of 4096": ["--block-size", "4096"],
    "in bfloat16": ["--quant-storage", "bfloat16"],
}


@pytest.mark.kernels
@pytest.mark.parametrize("options", OPTIONS)
def test_values_are_those_of_bitsandbytes(options, source, tmp_path):
    Nibble().quantize(source, tmp_path / "out", *OPTIONS[options])
    expected = by_bitsandbytes(tmp_path / "out")
    assert expected.keys() == {f"{name}.weight" for name in SHAPES}
    with nibble.open(tmp_path / "out", verify=True) as checkpoint:
        for name, values in expected.items():
            # Where bitsandbytes has no vector path, it makes FP4's code 8 a -0.
            values = values + 0
            weight = checkpoint[name].dequantize()
            assert checkpoint[name].scheme == f"bitsandbytes-{weight.kind}"
            assert stored.same(weight.torch(), values), name
            assert weight.shape == tuple(values.shape) == tuple(checkpoint[name].dequantize().torch("cpu").shape)
            in_numpy = values.float() if values.dtype == torch.bfloat16 else values
            assert numpy.array_equal(weight.numpy(), in_numpy.numpy())
            rows = len(weight)
            for index in (slice(1, rows - 1), slice(rows, None), slice(3, 1), slice(0, rows, 2), -1, (slice(None), 2)):
                assert stored.same(weight[index], values[index]), (name, index)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> pathlib.Path:
    """Codes of several pieces that have digests of their own."""
    folder = tmp_path_factory.mktemp("large")
    save_file({"a.weight": torch.randn(4096, 1024)}, folder / "model.safetensors")
    Nibble().quantize(folder / "model.safetensors", folder / "out")
    return folder / "out"


def test_a_slice_reads_its_rows_only(large):
    with nibble.open(large) as checkpoint:
        weight = checkpoint["a.weight"].dequantize()
        described = checkpoint.bytes_read
        assert described < 1 << 10
        part = weight[1000:1010]
        assert checkpoint.bytes_read - described < checkpoint["a.weight"].piece + (256 << 10)
        assert checkpoint["a.weight"].size > 6 * checkpoint["a.weight"].piece
        assert torch.equal(part, weight.torch()[1000:1010])


@pytest.mark.parametrize("part", ["", ".absmax", ".nested_absmax", ".nested_quant_map", ".quant_map"])
def test_damage_in_any_part_is_found(part, copy):
    name = "model.layers.1.mlp.up_proj.weight"
    flip(copy, name + part, 9)
    with nibble.open(copy) as checkpoint:
        weight = checkpoint[name].dequantize()
        with pytest.raises(nibble.DigestError) as caught:
            weight.torch()
        assert caught.value.tensor == name + part
        checkpoint[name.replace("layers.1", "layers.2")].dequantize().torch()
    with nibble.open(copy, verify=False) as checkpoint:
        checkpoint[name].dequantize().torch()


def test_what_is_not_4_bit(quantized):
    with nibble.open(quantized) as checkpoint:
        assert checkpoint["model.norm.weight"].scheme is None
        with pytest.raises(TypeError, match=r"is not 4-bit: torch\(\) and numpy\(\)"):
            checkpoint["model.norm.weight"].dequantize()


STATE = {
    "quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [4, 64], "nested_blocksize": 256,
    "nested_dtype": "float32", "nested_offset": 0.5,
}
FAULTS = {
    "shape": ({"shape": [4, 65]}, "are the shape"),
    "huge": ({"shape": [1 << 62, 1 << 62]}, "are the shape"),
    "negative": ({"shape": [-4, -64]}, "list of counts"),
    "no shape": ({"shape": None}, "list of counts"),
    "block": ({"blocksize": 0}, "blocks of 0"),
    "other block": ({"blocksize": 32}, r"its absmax is U8 \[4\], 8 of U8"),
    "kind": ({"quant_type": "fp4"}, "quant_type fp4"),
    "dtype": ({"dtype": "int\x1b"}, r"dtype int\\x1b"),
    "nested": ({"nested_blocksize": 2}, "its nested_absmax is"),
    "no nested": ({"nested_blocksize": 0}, "not a count"),
    "offset": ({"nested_offset": None}, "not a number"),
}


def described(folder: pathlib.Path, text: bytes, without: str | None = None) -> pathlib.Path:
    tensors = {
        "": torch.zeros(128, 1, dtype=torch.uint8), ".absmax": torch.zeros(4, dtype=torch.uint8),
        ".nested_absmax": torch.ones(1), ".nested_quant_map": torch.zeros(256), ".quant_map": torch.ones(16),
        ".quant_state.bitsandbytes__nf4": torch.tensor(list(text), dtype=torch.uint8),
    }
    save_file({f"a.weight{part}": value for part, value in tensors.items() if part != without},
              folder / "model.safetensors")
    return folder / "model.safetensors"


def test_statistics_that_fit(tmp_path):
    path = described(tmp_path, json.dumps(STATE).encode())
    with nibble.open(path, verify=False) as checkpoint:
        assert torch.equal(checkpoint["a.weight"].dequantize().torch(), torch.full((4, 64), 0.5, dtype=torch.bfloat16))


@pytest.mark.parametrize("fault", FAULTS)
def test_statistics_that_do_not_fit_are_refused(fault, tmp_path):
    change, message = FAULTS[fault]
    path = described(tmp_path, json.dumps(STATE | change).encode())
    with nibble.open(path, verify=False) as checkpoint:
        with pytest.raises(nibble.CheckpointError, match=message) as caught:
            checkpoint["a.weight"].dequantize()
        assert f"{path}: tensor 'a.weight'" in str(caught.value)


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"shape":[1],"shape":[2]}'])
def test_a_state_that_is_no_object_is_refused(text, tmp_path):
    with nibble.open(described(tmp_path, text), verify=False) as checkpoint:
        with pytest.raises(nibble.CheckpointError, match="a.weight"):
            checkpoint["a.weight"].dequantize()


@pytest.mark.parametrize("part", [".absmax", ".nested_quant_map", ".quant_map"])
def test_a_statistic_that_is_missing_is_named(part, tmp_path):
    with nibble.open(described(tmp_path, json.dumps(STATE).encode(), without=part), verify=False) as checkpoint:
        with pytest.raises(nibble.CheckpointError, match=f"its {part[1:]} is missing"):
            checkpoint["a.weight"].dequantize()


WITHOUT = """
import sys
for name in ("torch", "bitsandbytes", "transformers"):
    sys.modules[name] = None
import nibble
with nibble.open(sys.argv[1]) as checkpoint:
    weight = checkpoint["model.layers.1.mlp.up_proj.weight"].dequantize()
    print(weight.numpy().sum(dtype="f8"))
    for what in ("torch", "load", "save_adapter"):
        try:
            weight.torch() if what == "torch" else getattr(nibble, what)
        except ModuleNotFoundError as error:
            print(error)
"""


def test_without_torch(quantized):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "Sources" / "Python")}
    finished = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(quantized)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    total, tensor, load, save = finished.stdout.splitlines()
    with nibble.open(quantized) as checkpoint:
        values = checkpoint["model.layers.1.mlp.up_proj.weight"].dequantize().torch()
    assert float(total) == pytest.approx(values.double().sum().item(), rel=1e-9)
    assert "needs torch, which is not installed: pip install torch; numpy()" in tensor
    for message, name in ((load, "load"), (save, "save_adapter")):
        assert message.startswith(f"nibble.{name} needs torch, which is not installed: pip install torch transformers")
        assert "nibble.open does without" in message


def test_place_of_codes(quantized):
    """The codes themselves stay what is stored."""
    name = "model.layers.1.mlp.up_proj.weight"
    with nibble.open(quantized) as checkpoint:
        assert checkpoint[name].dtype == "U8" and checkpoint[name].size == place(quantized, name)["bytes"]
        assert repr(checkpoint[name].dequantize()) == f"DequantizedTensor('{name}', nf4, BF16, [512, 256])"
