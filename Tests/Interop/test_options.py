"""The options of `nibble quantize`, each against what bitsandbytes makes with the same setting."""

import os
import platform
import subprocess
import sys

import pytest
import torch
import transformers
from safetensors.torch import save_file

import checkpoint
import oracle
from architectures import case, text
from tool import DIFFERENT

pytestmark = pytest.mark.kernels

BLOCK_SIZES = [32, 64, 128, 256, 512, 1024, 2048, 4096]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A Llama in bf16, saved."""
    folder = tmp_path_factory.mktemp("llama") / "source"
    case("llama").create().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=DTYPES, ids=str)
def awkward(request, tmp_path_factory):
    """Weights chosen for their trouble: odd counts, zero blocks, one value, huge and tiny blocks, exact ties."""
    folder = tmp_path_factory.mktemp("awkward") / "source"
    config = transformers.LlamaConfig(**text(hidden=60, heads=6, intermediate_size=77, vocab_size=97))
    model = transformers.LlamaForCausalLM(config).to(request.param)
    with torch.no_grad():
        layer = model.model.layers[0]
        layer.self_attn.q_proj.weight[:20] = 0
        layer.self_attn.k_proj.weight.mul_(torch.logspace(-7, 3, 60).to(request.param))
        layer.self_attn.v_proj.weight.fill_(0)
        layer.self_attn.o_proj.weight.fill_(-1.5)
        layer.mlp.gate_proj.weight.copy_(torch.linspace(-1, 1, 77 * 60).reshape(77, 60))
        layer.mlp.up_proj.weight.copy_((torch.randint(-8, 9, (77, 60)) / 8).to(request.param))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("double", [True, False], ids=["double", "single"])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_scheme(kind, block_size, double, awkward, nibble, tmp_path):
    options = ["--scheme", kind, f"--block-size={block_size}"] + ([] if double else ["--no-double-quant"])
    nibble.quantize(awkward, tmp_path / "out", *options)
    nibble.verify(tmp_path / "out")
    scheme = {"kind": kind, "block_size": block_size, "double": double}
    assert oracle.check_checkpoint(tmp_path / "out", awkward, **scheme) == 14


@pytest.mark.parametrize("double", [True, False], ids=["double", "single"])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_scheme_loads(kind, double, llama, nibble, tmp_path):
    source, out, saved = llama, tmp_path / "out", tmp_path / "reference"
    nibble.quantize(source, out, "--scheme", kind, *([] if double else ["--no-double-quant"]))
    settings = oracle.bitsandbytes_config(kind, double)
    reference = transformers.LlamaForCausalLM.from_pretrained(source, quantization_config=settings)
    reference.save_pretrained(saved)
    oracle.check_saved_alike(out, saved)
    model = transformers.LlamaForCausalLM.from_pretrained(out)
    assert oracle.check_loaded_alike(model, reference) == 14
    tokens = {"input_ids": torch.arange(3, 90, 5)[None]}
    with torch.inference_mode():
        error = oracle.relative_error(model(**tokens).logits, reference(**tokens).logits)
    assert error <= oracle.MAXIMUM_RELATIVE_LOGIT_ERROR


def test_map_of_a_processor_without_fma(llama, nibble, tmp_path):
    """bitsandbytes computes its map with what the processor has, so there are files with either."""
    program = ("import sys, torch; from bitsandbytes import functional;"
               "torch.save(functional.create_dynamic_map(), sys.argv[1])")
    subprocess.run([sys.executable, "-c", program, tmp_path / "map"], check=True, capture_output=True,
                   env=os.environ | {"ATEN_CPU_CAPABILITY": "default"})
    rounded = oracle.dynamic_map(fused=False)
    if platform.machine() == "x86_64":
        assert checkpoint.same(torch.load(tmp_path / "map"), rounded)
    nibble.quantize(llama, tmp_path / "out")
    (file,) = (tmp_path / "out").glob("*.safetensors")
    for name in ("nibble-manifest.json", "checksums.xxh128"):
        (tmp_path / "out" / name).unlink()
    tensors = checkpoint.tensors(tmp_path / "out")
    maps = [name for name in tensors if name.endswith(".nested_quant_map")]
    save_file(tensors | {name: rounded.clone() for name in maps}, file, metadata={"format": "pt"})
    nibble.verify(tmp_path / "out")
    save_file(tensors | {name: rounded.nextafter(torch.tensor(2.0)) for name in maps}, file, metadata={"format": "pt"})
    problems = nibble.json("verify", tmp_path / "out", expect=DIFFERENT)["problems"]
    assert len(problems) == len(maps) == 14 and all("dynamic map" in problem["problem"] for problem in problems)


@pytest.mark.parametrize("storage", DTYPES, ids=str)
def test_quant_storage(storage, nibble, tmp_path):
    """The same bytes under a float dtype, which FSDP can flatten; the model's dtype is the storage's."""
    source, out, saved = tmp_path / "source", tmp_path / "out", tmp_path / "reference"
    case("llama").create().to(storage).save_pretrained(source)
    nibble.quantize(source, out, "--quant-storage", str(storage).removeprefix("torch."))
    nibble.verify(out)
    settings = oracle.bitsandbytes_config(bnb_4bit_quant_storage=storage)
    reference = transformers.LlamaForCausalLM.from_pretrained(source, quantization_config=settings)
    reference.save_pretrained(saved)
    oracle.check_saved_alike(out, saved)
    model = transformers.LlamaForCausalLM.from_pretrained(out, dtype=storage)
    assert oracle.check_loaded_alike(model, reference) == 14
    assert model.model.layers[0].mlp.up_proj.weight.dtype == storage


def test_double_precision_is_narrowed(nibble, tmp_path):
    source, narrow, out = tmp_path / "source", tmp_path / "narrow", tmp_path / "out"
    model = case("llama").create().double()
    model.save_pretrained(source)
    model.float().save_pretrained(narrow)
    report = nibble.quantize(source, out)
    assert any("F64" in warning or "float64" in warning for warning in report["warnings"]), report
    weights = checkpoint.four_bit_weights(checkpoint.tensors(out))
    original = checkpoint.tensors(narrow)
    assert len(weights) == 14
    for name, weight in weights.items():
        oracle.check_weight(name, weight, original[name])
    transformers.LlamaForCausalLM.from_pretrained(out)


def test_keep_glob(llama, nibble, tmp_path):
    """What is kept is in the skip list by full path, and stays as it was."""
    out = tmp_path / "out"
    nibble.quantize(llama, out, "--keep", "model.layers.*.mlp.down_proj", "--keep=model.layers.1.self_attn.*")
    nibble.verify(out)
    skipped = checkpoint.config(out)["quantization_config"]["llm_int8_skip_modules"]
    assert set(skipped) == {
        "lm_head", "model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj",
        *(f"model.layers.1.self_attn.{letter}_proj" for letter in "qkvo"),
    }
    assert oracle.check_checkpoint(out, llama) == 8
    settings = oracle.bitsandbytes_config(llm_int8_skip_modules=skipped)
    reference = transformers.LlamaForCausalLM.from_pretrained(llama, quantization_config=settings)
    model, information = transformers.LlamaForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(information.values()), information
    assert oracle.check_loaded_alike(model, reference) == 8


def test_keep_towers(nibble, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    case("llava").create().save_pretrained(source)
    nibble.quantize(source, out, "--keep", "towers")
    names = checkpoint.four_bit_weights(checkpoint.tensors(out))
    assert len(names) == 14
    assert not any("vision_tower" in name or "projector" in name for name in names)
    model, information = case("llava").model_class.from_pretrained(out, output_loading_info=True)
    assert not any(information.values()), information
    with torch.inference_mode():
        assert torch.isfinite(model(**case("llava").example(model.config, model.dtype)).logits).all()


@pytest.mark.parametrize("size", ["30KB", "64KiB", "70kB"])
def test_shards(size, llama, nibble, tmp_path):
    """Several shards: a weight beside its statistics, one index, the same tensors as one file."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    report = nibble.quantize(llama, out, "--max-shard-size", size)
    nibble.quantize(llama, whole)
    nibble.verify(out)
    shards = sorted(out.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert [shard.name for shard in shards] == [
        f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)
    ]
    assert {shard.name for shard in shards} <= set(report["files"])
    for shard in shards:
        alone = checkpoint.four_bit_weights(checkpoint.shard_tensors(shard))
        assert all(len(weight.parts) == 4 for weight in alone.values())
    mine, expected = checkpoint.tensors(out), checkpoint.tensors(whole)
    assert set(mine) == set(expected)
    assert all(checkpoint.same(mine[name], expected[name]) for name in expected)
    model, information = transformers.LlamaForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(information.values()), information


def test_jobs_do_not_matter(nibble, tmp_path):
    """More than one piece per tensor, one worker or several: the same bytes in every file."""
    source = tmp_path / "source"
    source.mkdir()
    generator = torch.Generator().manual_seed(1)
    save_file(
        {"model.layers.0.mlp.up_proj.weight": torch.randn(3001, 2048, generator=generator).bfloat16(),
         "model.layers.0.mlp.down_proj.weight": torch.randn(777, 3001, generator=generator).bfloat16(),
         "lm_head.weight": torch.randn(64, 2048, generator=generator).bfloat16()},
        source / "model.safetensors", metadata={"format": "pt"},
    )
    transformers.LlamaConfig(architectures=["NovelForCausalLM"], dtype="bfloat16").save_pretrained(source)
    files = []
    for jobs in (1, 2, 5):
        out = tmp_path / f"out-{jobs}"
        nibble.quantize(source, out, "--jobs", jobs)
        assert oracle.check_checkpoint(out, source) == 2
        files.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert files[0] == files[1] == files[2]


def test_dry_run_writes_nothing(llama, nibble, tmp_path):
    plan = nibble.quantize(llama, tmp_path / "out", "--dry-run")
    assert list(tmp_path.iterdir()) == []
    real = nibble.quantize(llama, tmp_path / "out")
    assert plan["seconds"] == 0
    same = ("files", "tensors", "parameters", "bytesIn", "bytesOut", "warnings")
    assert {key: plan[key] for key in same} == {key: real[key] for key in same}
