"""Quantized GGUF: types as llama-quantize chooses them, blocks as ggml quantizes the same rows."""

import ctypes
import functools
import hashlib
import itertools
import os
import pathlib
import platform
import shutil
import struct
import subprocess

import gguf
import numpy as np
import pytest
import torch
import transformers
from bitsandbytes import functional
from safetensors.torch import save_file

import checkpoint
import gguf_families
import llama
import oracle
from gguf_families import Family, sizes
from tool import ROOT, Nibble

FIXTURE = ROOT / "fixtures" / "sql-llama"
RECORDED = ROOT / "fixtures" / "gguf-types" / "quantized.txt"

SCHEMES = (
    "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s",
    "q5_k_m", "q6_k", "iq4_nl", "iq4_xs", "mxfp4_moe", "tq1_0", "tq2_0",
)
# Of these ggml searches no scale, so that there is nothing to do better. Of the others x86-64 builds write one file.
EXACT = {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4", "TQ1_0", "TQ2_0"}
IS_X86 = platform.machine() == "x86_64"

# The rows of the second are whole blocks of 256, with experts and queries that share keys; those of the third are not.
MODELS = {
    "sql-llama": None,
    "mixtral-256": Family("mixtral-256", "MixtralForCausalLM", sizes(
        hidden=256, heads=8, num_local_experts=4, num_experts_per_tok=2)),
    "qwen2-moe": gguf_families.family("qwen2-moe"),
}

every_scheme = pytest.mark.parametrize("scheme", SCHEMES)


@pytest.fixture(scope="module")
def source(families, nibble, tmp_path_factory):
    """By a model's name: its directory, its GGUF file with nothing quantized, and the values in it."""
    folder = tmp_path_factory.mktemp("source")

    @functools.cache
    def get(name: str) -> tuple[pathlib.Path, pathlib.Path, dict[str, np.ndarray]]:
        directory = families.directory(MODELS[name]) if MODELS[name] else FIXTURE
        nibble.run("convert", directory, "-o", folder / f"{name}.gguf")
        return directory, folder / f"{name}.gguf", values_of(folder / f"{name}.gguf")

    return get


def tensors(path: pathlib.Path) -> dict:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def values_of(path: pathlib.Path) -> dict[str, np.ndarray]:
    return {name: gguf.dequantize(tensor.data, tensor.tensor_type) for name, tensor in tensors(path).items()}


def record(path: pathlib.Path, whole: bool) -> list[str]:
    """As a line of the records has it."""
    found = gguf.GGUFReader(path).tensors
    groups = itertools.groupby(tensor.tensor_type.name for tensor in found)
    names = "".join(f"{tensor.name}\n" for tensor in found)
    return [
        hashlib.sha256(path.read_bytes()).hexdigest() if whole else "-",
        hashlib.sha256(names.encode()).hexdigest(),
        " ".join(f"{len(list(group))}*{name}" for name, group in groups),
    ]


def by_ggml(kind: gguf.GGMLQuantizationType, values: np.ndarray, importance: np.ndarray | None = None) -> bytes:
    """The rows in blocks; `importance` is one row for each expert."""
    quantize = llama.library().ggml_quantize_chunk
    quantize.restype = ctypes.c_size_t
    quantize.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + 3 * [ctypes.c_int64] + [ctypes.c_void_p]
    columns = values.shape[-1]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    found = b""
    parts = [values.reshape(-1, columns)] if importance is None else values.reshape(len(importance), -1, columns)
    for number, part in enumerate(parts):
        part = np.ascontiguousarray(part, np.float32)
        weights = None if importance is None else np.ascontiguousarray(importance[number], np.float32)
        out = np.zeros(part.size // block * size, np.uint8)
        written = quantize(
            kind, part.ctypes.data, out.ctypes.data, 0, len(part), columns,
            None if weights is None else weights.ctypes.data)
        assert written == out.size
        found += out.tobytes()
    return found


def error(kind: gguf.GGMLQuantizationType, blocks: bytes, values: np.ndarray, importance: np.ndarray | None) -> float:
    """The root of the mean of squares, each weighted by its column's importance."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rows = np.frombuffer(blocks, np.uint8).reshape(-1, values.shape[-1] // block * size)
    squares = (gguf.dequantize(rows, kind).astype(np.float64).reshape(values.shape) - values) ** 2
    if importance is not None:
        squares = squares.reshape(len(importance), -1, values.shape[-1]) * importance[:, None, :]
    return float(np.sqrt(squares.mean()))


def check_blocks(path: pathlib.Path, values: dict[str, np.ndarray], importance: dict[str, np.ndarray] | None = None) -> set[str]:
    """Every tensor of the file against ggml; returns the types that are among them."""
    found = tensors(path)
    assert found.keys() == values.keys()
    for name, tensor in found.items():
        kind, weights = tensor.tensor_type, (importance or {}).get(name)
        mine, theirs = tensor.data.tobytes(), by_ggml(kind, values[name], weights)
        if kind.name in EXACT and (weights is None or kind.name in ("F32", "Q8_0")) or IS_X86 and weights is None:
            assert mine == theirs, f"{name}, {kind.name}"
        elif mine != theirs:
            errors = error(kind, mine, values[name], weights), error(kind, theirs, values[name], weights)
            assert errors[0] <= errors[1], f"{name}, {kind.name}: {errors}"
    return {tensor.tensor_type.name for tensor in found.values()}


@functools.cache
def recorded() -> dict[tuple[str, str], list[str]]:
    """By model and scheme, what llama-quantize wrote."""
    lines = [line.rstrip("\n").split("\t") for line in open(RECORDED) if not line.startswith("#")]
    return {(model, scheme): rest for model, scheme, *rest in lines}


@every_scheme
@pytest.mark.parametrize("name", MODELS)
def test_scheme(name, scheme, source, nibble: Nibble, tmp_path):
    directory, _, values = source(name)
    out = tmp_path / "quantized.gguf"
    nibble.quantize(directory, out, "--scheme", scheme)
    check_blocks(out, values)
    found, expected = record(out, whole=MODELS[name] is None), recorded()[name, scheme]
    assert found[1:] == expected[1:]
    if IS_X86:
        assert found == expected


# Importance

def made_up_importance(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """For every matrix in the layers, a row for each expert: over many orders of magnitude, some zero."""
    random = np.random.default_rng(5)
    found = {}
    for name, rows in values.items():
        if name.startswith("blk.") and rows.ndim > 1 and "gate_inp" not in name:
            shape = (rows.shape[0] if rows.ndim == 3 else 1, rows.shape[-1])
            found[name] = (np.exp(2 * random.standard_normal(shape)) * (random.random(shape) > 0.03)).astype(np.float32)
    return found


# A power of two, so that what is divided by it again is what it was.
CALLS = 8


def write_legacy(path: pathlib.Path, importance: dict[str, np.ndarray]) -> None:
    content = struct.pack("<i", len(importance))
    for name, rows in importance.items():
        content += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", CALLS, rows.size)
        content += (rows * CALLS).tobytes()
    path.write_bytes(content + struct.pack("<ii", 3, 4) + b"text")


def write_gguf(path: pathlib.Path, importance: dict[str, np.ndarray]) -> None:
    writer = gguf.GGUFWriter(path, "")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["text"])
    writer.add_uint32("imatrix.chunk_count", 3)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, rows in importance.items():
        writer.add_tensor(f"{name}.in_sum2", rows * CALLS)
        writer.add_tensor(f"{name}.counts", np.full((len(rows), 1), CALLS, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("scheme", ["q4_0", "q5_1", "q2_k", "q3_k_m", "q4_k_m", "q6_k", "iq4_xs", "iq4_nl"])
@pytest.mark.parametrize("name", ["sql-llama", "mixtral-256"])
def test_importance(name, scheme, source, nibble: Nibble, tmp_path):
    """Weighted by it the error is at most ggml's; the form of the file makes no difference to the tensors."""
    directory, _, values = source(name)
    importance = made_up_importance(values)
    written = []
    for form, write in {"legacy.dat": write_legacy, "today.gguf": write_gguf}.items():
        write(tmp_path / form, importance)
        nibble.quantize(directory, tmp_path / f"{form}.out.gguf", "--scheme", scheme, "--imatrix", tmp_path / form)
        written.append(tensors(tmp_path / f"{form}.out.gguf"))
    one, other = ({key: tensor.data.tobytes() for key, tensor in found.items()} for found in written)
    assert one == other
    check_blocks(tmp_path / "today.gguf.out.gguf", values, importance)
    nibble.quantize(directory, tmp_path / "plain.gguf", "--scheme", scheme)
    plain = tensors(tmp_path / "plain.gguf")
    assert any(plain[key].data.tobytes() != one[key] for key in importance)
    fields = gguf.GGUFReader(tmp_path / "today.gguf.out.gguf").fields
    assert fields["quantize.imatrix.chunks_count"].contents() == 3
    assert fields["quantize.imatrix.dataset"].contents() == "text"


# Overrides

@pytest.mark.parametrize(("options", "expected"), [
    (["--output-type", "q8_0"], {r"output.weight": "Q8_0"}),
    (["--embedding-type", "f16"], {r"token_embd.weight": "F16"}),
    (["--tensor-type", r"attn_v=q6_k", "--tensor-type", r"blk\.[01]\.ffn_down=q5_1"],
     {"blk.0.attn_v.weight": "Q6_K", "blk.3.attn_v.weight": "Q6_K", "blk.0.ffn_down.weight": "Q5_1",
      "blk.1.ffn_down.weight": "Q5_1"}),
], ids=["output", "embedding", "tensors"])
def test_overrides(options, expected, source, nibble: Nibble, tmp_path):
    """What is named gets its type; everything else is what it was."""
    directory, _, values = source("sql-llama")
    nibble.quantize(directory, tmp_path / "plain.gguf", "--scheme", "q4_k_s")
    nibble.quantize(directory, tmp_path / "other.gguf", "--scheme", "q4_k_s", *options)
    plain, other = (
        {name: tensor.tensor_type.name for name, tensor in tensors(tmp_path / file).items()}
        for file in ("plain.gguf", "other.gguf"))
    for name, kind in expected.items():
        assert other[name] == kind != plain[name], name
    named = ("attn_v", "blk.0.ffn_down", "blk.1.ffn_down") if len(expected) > 1 else tuple(expected)
    assert {name for name in other if other[name] != plain[name]} <= {
        name for name in other if any(part in name for part in named)}
    check_blocks(tmp_path / "other.gguf", values)


def test_pure(source, nibble: Nibble, tmp_path):
    directory, _, values = source("sql-llama")
    nibble.quantize(directory, tmp_path / "pure.gguf", "--scheme", "q4_k_m", "--pure")
    assert check_blocks(tmp_path / "pure.gguf", values) == {"Q4_K", "F32"}


# Between the trainers' form and llama.cpp's

def test_from_nf4(nibble: Nibble, tmp_path, quantized):
    """As from the values that bitsandbytes makes of the 4 bits, in float32."""
    plain = tmp_path / "sql-llama"
    shutil.copytree(FIXTURE, plain, ignore=shutil.ignore_patterns("*.safetensors*"))
    stored = checkpoint.tensors(quantized)
    weights = checkpoint.four_bit_weights(stored)
    assert len(weights) == 28
    values = {name: tensor for name, tensor in stored.items() if not checkpoint.is_companion(name)}
    for name, weight in weights.items():
        parts = {f"{name}.{key}": part for key, part in weight.parts.items()}
        parts[f"quant_state.bitsandbytes__{weight.kind}"] = torch.tensor(list(weight.text.encode()), dtype=torch.uint8)
        state = functional.QuantState.from_dict(parts, device=torch.device("cpu"))
        state.dtype = torch.float32
        values[name] = functional.dequantize_4bit(weight.packed, state)
    values = {name: tensor.contiguous() for name, tensor in values.items()}
    save_file(values, plain / "model.safetensors", {"format": "pt"})
    report = nibble.quantize(quantized, tmp_path / "mine.gguf", "--scheme", "q4_k_m")
    assert sum("what q4_k_m loses add up" in warning for warning in report["warnings"]) == 1
    report = nibble.quantize(plain, tmp_path / "expected.gguf", "--scheme", "q4_k_m")
    assert not any("add up" in warning for warning in report["warnings"])
    # What is in blocks is another matter.
    nibble.quantize(plain, tmp_path / "blocks.gguf", "--scheme", "q8_0")
    nibble.run("quantize", tmp_path / "blocks.gguf", "-o", tmp_path / "no.gguf", "--scheme", "q4_k_m", expect=69)
    mine, expected = tensors(tmp_path / "mine.gguf"), tensors(tmp_path / "expected.gguf")
    assert list(mine) == list(expected)
    for name, tensor in expected.items():
        assert mine[name].tensor_type == tensor.tensor_type, name
        assert mine[name].data.tobytes() == tensor.data.tobytes(), name


@pytest.mark.kernels
@pytest.mark.parametrize("scheme", [None, "q8_0"])
def test_to_nf4(scheme, source, nibble: Nibble, tmp_path):
    """bitsandbytes' own quantization of the file in bf16. Vectors too are in 16 bits: the loader would leave F32 as it
    is, and the output embedding could not multiply with it."""
    file = source("sql-llama")[1]
    options = []
    if scheme:
        nibble.quantize(FIXTURE, tmp_path / "blocks.gguf", "--scheme", scheme)
        file, options = tmp_path / "blocks.gguf", ["--force-requantize"]
    nibble.run("convert", file, "-o", tmp_path / "plain", "--dtype", "bfloat16")
    nibble.quantize(file, tmp_path / "nf4", *options)
    nibble.verify(tmp_path / "nf4")
    assert oracle.check_checkpoint(tmp_path / "nf4", tmp_path / "plain") == 28
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "nf4")
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "plain", quantization_config=oracle.bitsandbytes_config())
    assert oracle.check_loaded_alike(model, reference) == 28
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "nf4")
    tokens = tokenizer("SELECT a FROM b", return_tensors="pt").input_ids
    with torch.inference_mode():
        assert torch.equal(model(tokens).logits, reference(tokens).logits)


def test_merge_to_nf4(source, nibble: Nibble, tmp_path):
    """An adapter into a GGUF base, and on to NF4: as into the directory that the file becomes."""
    file = source("sql-llama")[1]
    adapter = ROOT / "fixtures" / "sql-llama-dialect"
    nibble.run("convert", file, "-o", tmp_path / "plain", "--dtype", "bfloat16")
    for base, out in ((file, "mine"), (tmp_path / "plain", "expected")):
        nibble.run("merge", base, adapter, "-o", tmp_path / out, "--scheme", "nf4")
    mine, expected = checkpoint.tensors(tmp_path / "mine"), checkpoint.tensors(tmp_path / "expected")
    assert mine.keys() == expected.keys()
    for name, tensor in expected.items():
        assert checkpoint.same(mine[name], tensor), name
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "mine")
    with torch.inference_mode():
        assert torch.isfinite(model(torch.arange(4, 20)[None]).logits).all()


# The tool itself, where it is at hand

@pytest.fixture(scope="module")
def llama_quantize() -> str:
    found = os.environ.get("LLAMA_QUANTIZE") or shutil.which("llama-quantize")
    return found or pytest.skip("no llama-quantize, neither in PATH nor named by $LLAMA_QUANTIZE")


@every_scheme
@pytest.mark.parametrize("name", MODELS)
def test_file_is_that_of_llama_quantize(name, scheme, llama_quantize, source, nibble: Nibble, tmp_path):
    """From the directory and from the GGUF file."""
    directory, file, _ = source(name)
    subprocess.run([llama_quantize, file, tmp_path / "theirs.gguf", scheme], check=True, capture_output=True)
    theirs = (tmp_path / "theirs.gguf").read_bytes()
    for origin in (directory, file):
        out = tmp_path / f"from-{origin.name}.gguf"
        nibble.quantize(origin, out, "--scheme", scheme)
        assert out.read_bytes() == theirs, origin.name


@pytest.mark.parametrize("pure", [[], ["--pure"]], ids=["mixture", "pure"])
@pytest.mark.parametrize("scheme", ["q2_k", "q4_k_m", "mxfp4_moe"])
def test_families_are_those_of_llama_quantize(scheme, pure, llama_quantize, families, nibble: Nibble, tmp_path):
    """Rows that are not whole blocks, tied embeddings, fused matrices, sources in each float type."""
    for family in gguf_families.FAMILIES:
        directory, file, theirs = families.directory(family), tmp_path / "plain.gguf", tmp_path / "theirs.gguf"
        nibble.run("convert", directory, "-o", file, "--force")
        nibble.quantize(directory, tmp_path / "mine.gguf", "--scheme", scheme, "--force", *pure)
        subprocess.run([llama_quantize, *pure, file, theirs, scheme], check=True, capture_output=True)
        assert (tmp_path / "mine.gguf").read_bytes() == theirs.read_bytes(), family.name


@pytest.mark.parametrize("scheme", ["q2_k", "q3_k_m", "q4_k_m", "q6_k", "iq4_xs", "iq4_nl"])
@pytest.mark.parametrize("name", ["sql-llama", "mixtral-256"])
def test_file_with_importance_is_that_of_llama_quantize(name, scheme, llama_quantize, source, nibble: Nibble, tmp_path):
    """Named by where it lies: llama-quantize writes down the path that it is given, Nibble the name."""
    directory, file, values = source(name)
    write_gguf(tmp_path / "importance.gguf", made_up_importance(values))
    command = [os.path.abspath(llama_quantize), "--imatrix", "importance.gguf", file, "theirs.gguf", scheme]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    nibble.quantize(directory, tmp_path / "mine.gguf", "--scheme", scheme, "--imatrix", tmp_path / "importance.gguf")
    assert (tmp_path / "mine.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()
