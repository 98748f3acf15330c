"""A directory in MLX's groups as a source: the values of `mx.dequantize`, under the names of transformers."""

import contextlib
import io
import json

import mlx_lm
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import checkpoint
import gguf_oracle
import mlx_models
import mlx_originals
import peft_merge
from adapters import row
from architectures import BF16, F16, F32, text
from checkpoint import same
from mlx_models import Model
from tool import DIFFERENT, REJECTED, ROOT, UNSUPPORTED, USAGE, Nibble

FIXTURE = ROOT / "fixtures" / "sql-llama"
DTYPES = {"bfloat16": BF16, "float16": F16, "float32": F32}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Not to be changed."""
    return mlx_models.Models(tmp_path_factory.mktemp("mlx"))


@pytest.fixture(scope="module")
def llama(models, tmp_path_factory):
    """In 4 bits; not to be changed."""
    out = tmp_path_factory.mktemp("mlx-llama") / "llama"
    Nibble().quantize(models.directory(mlx_models.model("llama")), out, "--scheme", "mlx-q4")
    return out


@pytest.fixture(scope="module")
def mixtral(models, tmp_path_factory):
    out = tmp_path_factory.mktemp("mlx-mixtral") / "mixtral"
    Nibble().quantize(models.directory(mlx_models.model("mixtral")), out, "--scheme", "mlx-q4")
    return out


def check_values(out, expected: dict, dtype: torch.dtype | None = None) -> None:
    found = checkpoint.tensors(out)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert same(found[name], tensor if dtype is None else tensor.to(dtype)), name


# --- values ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [BF16, F16, F32], ids=str)
@pytest.mark.parametrize(("scheme", "group"), [
    *((scheme, group) for scheme in mlx_models.SCHEMES if scheme != "mlx-mxfp4" for group in (32, 64, 128)),
    ("mlx-mxfp4", 32),
])
def test_values(scheme, group, dtype, nibble: Nibble, tmp_path):
    """Any codes, and scales and biases of any size; the type is that of the scales, of MXFP4 bfloat16."""
    source = Model("source", "LlamaForCausalLM", text(128, layers=1), dtype, change={"torch_dtype": None}).save(tmp_path)
    nibble.quantize(source, tmp_path / "mlx", "--scheme", scheme, "--group-size", group)
    file = tmp_path / "mlx" / "model.safetensors"
    tensors, generator = load_file(file), torch.Generator().manual_seed(3)
    for name, tensor in tensors.items():
        if tensor.dtype == torch.uint32:
            codes = torch.randint(-2**31, 2**31, tensor.shape, generator=generator, dtype=torch.int64)
            tensors[name] = codes.to(torch.int32).view(torch.uint32)
        elif tensor.dtype == torch.uint8:
            # What float16 can hold: 6 times 2^13 at most, and its least normal number.
            tensors[name] = torch.randint(114, 141, tensor.shape, generator=generator, dtype=torch.uint8)
        elif name.endswith((".scales", ".biases")):
            tensors[name] = (torch.randn(tensor.shape, generator=generator) * 20).to(dtype)
    save_file(tensors, file, {"format": "mlx"})
    expected = mlx_originals.originals(tmp_path / "mlx")
    assert expected.keys() == checkpoint.tensors(source).keys()
    for option in ("keep", "bfloat16", "float16", "float32"):
        nibble.run("convert", tmp_path / "mlx", "-o", tmp_path / option, "--dtype", option)
        check_values(tmp_path / option, expected, DTYPES.get(option))


@pytest.mark.parametrize("model", mlx_models.rows())
def test_every_class(model: Model, models, nibble: Nibble, tmp_path):
    """There and back: names, shapes and config.json of the source, which transformers loads."""
    source, mlx, out = models.directory(model), tmp_path / "mlx", tmp_path / "out"
    nibble.quantize(source, mlx, "--scheme", "mlx-q8", "--group-size", "32")
    report = nibble.json("convert", mlx, "-o", out, "--dtype", "bfloat16")
    nibble.verify(out)
    nibble.verify(out, "--against", mlx)
    assert "parameters" not in json.dumps(report["warnings"])
    check_values(out, mlx_originals.originals(mlx), BF16)
    before, after = checkpoint.tensors(source), checkpoint.tensors(out)
    before = {model.prefix + name: tensor for name, tensor in before.items()}
    left = before.keys() - after.keys()
    # Of embeddings that mlx-lm takes for both, the output's are not there.
    assert before.keys() >= after.keys() and left <= {"lm_head.weight"}
    for name, tensor in after.items():
        assert tensor.shape == before[name].shape
        assert torch.allclose(tensor.float(), before[name].float(), atol=0.02), name
    config = checkpoint.config(out)
    assert "quantization" not in config and "quantization_config" not in config
    stated = checkpoint.config(source) | {"torch_dtype": "bfloat16"}
    # mlx-lm takes it from generation_config.json.
    assert all(config[key] == value for key, value in stated.items() if key != "eos_token_id")
    _, information = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(information.values()), information


def test_made_by_mlx_lm(models, nibble: Nibble, tmp_path):
    """Its converter's own directory, in which modules have their own format, or none."""
    def choose(path: str, module) -> bool | dict:
        if path.endswith("v_proj"):
            return {"group_size": 32, "bits": 6}
        if path.endswith("up_proj"):
            return {"group_size": 32, "bits": 4, "mode": "mxfp4"}
        return hasattr(module, "to_quantized") and not path.endswith("o_proj")

    source, mlx = models.directory(mlx_models.model("llama")), tmp_path / "mlx"
    with contextlib.redirect_stdout(io.StringIO()):
        mlx_lm.convert(str(source), str(mlx), quantize=True, q_group_size=64, q_bits=3, quant_predicate=choose)
    assert checkpoint.config(mlx)["quantization"]["model.layers.0.self_attn.v_proj"]["bits"] == 6
    nibble.run("convert", mlx, "-o", tmp_path / "out")
    check_values(tmp_path / "out", mlx_originals.originals(mlx))
    # Said of each module, it is the same.
    own = checkpoint.config(mlx)["quantization"]
    for layer in range(2):
        own |= {f"model.layers.{layer}.self_attn.o_proj": False, f"model.layers.{layer}.self_attn.q_proj": True}
    mlx_originals.change(mlx, quantization=own)
    nibble.run("convert", mlx, "-o", tmp_path / "again")
    check_values(tmp_path / "again", checkpoint.tensors(tmp_path / "out"))
    rows = {row["name"]: row["dtype"] for row in nibble.json("inspect", mlx)["tensors"]}
    layer = "model.layers.0."
    assert [rows[layer + name + ".weight"] for name in (
        "self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "self_attn.o_proj"
    )] == ["MLX-Q3", "MLX-Q6", "MLX-MXFP4", "BF16"]


# --- what is made of it ----------------------------------------------------------------------------------------------

@pytest.mark.kernels
@pytest.mark.parametrize("name", ["plain-bf16", "plain-f16", "plain-f32", "dora", "conv1d", "experts-and-attention",
                                  "experts-qwen3", "embedding-tied-f32"])
def test_merge(name, bases, nibble: Nibble, tmp_path):
    """What PEFT makes of the dequantized model."""
    base, mlx, out = bases[row(name).base], tmp_path / "mlx", tmp_path / "out"
    nibble.quantize(base, mlx, "--scheme", "mlx-q4", "--group-size", "32")
    wide = mlx_originals.write(mlx, tmp_path / "wide")
    adapter = row(name).create(wide, tmp_path / "adapter")
    expected = peft_merge.reference(row(name), wide, adapter)
    nibble.json("merge", mlx, adapter, "-o", out)
    nibble.verify(out)
    model, information = row(name).auto_class.from_pretrained(out, dtype="auto", output_loading_info=True)
    assert not any(information.values()), information
    peft_merge.check_tensors(model.eval().state_dict(), expected)
    assert "quantization" not in checkpoint.config(out)
    # The same as from the dequantized model, in one pass with NF4 too.
    for options in ((), ("--scheme", "nf4")):
        outputs = []
        for source in (mlx, wide):
            outputs.append(tmp_path / f"{source.name}{len(options)}")
            nibble.json("merge", source, adapter, "-o", outputs[-1], *options)
        check_values(outputs[0], checkpoint.tensors(outputs[1]))
    refused = nibble.run(
        "merge", mlx, adapter, "-o", tmp_path / "none", "--base-as-trained", "nf4", expect=USAGE)
    assert "this one is quantized (MLX)" in refused.stderr


def test_gguf(nibble: Nibble, tmp_path):
    """The file that the dequantized model gives."""
    mlx, wide = tmp_path / "mlx" / "model", tmp_path / "wide" / "model"
    mlx.parent.mkdir()
    wide.parent.mkdir()
    nibble.quantize(FIXTURE, mlx, "--scheme", "mlx-q4")
    nibble.run("convert", mlx, "-o", wide)
    check_values(wide, mlx_originals.originals(mlx))
    for verb, options in (("convert", ()), ("convert", ("--dtype", "float32")), ("quantize", ("--scheme", "q8_0"))):
        files = []
        for source in (mlx, wide):
            files.append(source.parent / "model.gguf")
            report = nibble.json(verb, source, "-o", files[-1], "--force", *options)
            is_said = "the source is quantized (MLX)" in json.dumps(report["warnings"])
            assert is_said == (verb == "quantize" and source == mlx)
        assert files[0].read_bytes() == files[1].read_bytes()
    assert gguf_oracle.read(files[0])["tensors"]["blk.0.attn_q.weight"][0] == "Q8_0"


@pytest.mark.parametrize("name", ["llama", "mixtral"])
@pytest.mark.parametrize("scheme", ["nf4", "mlx-q3"])
def test_quantize_again(name, scheme, nibble: Nibble, tmp_path, request):
    """Only when it is asked for."""
    mlx = request.getfixturevalue(name)
    nibble.run("convert", mlx, "-o", tmp_path / "wide")
    refused = nibble.run("quantize", mlx, "-o", tmp_path / "none", "--scheme", scheme, expect=UNSUPPORTED)
    assert "is already quantized (MLX); --force-requantize" in refused.stderr and not (tmp_path / "none").exists()
    nibble.quantize(mlx, tmp_path / "mine", "--scheme", scheme, "--force-requantize")
    nibble.quantize(tmp_path / "wide", tmp_path / "theirs", "--scheme", scheme)
    check_values(tmp_path / "mine", checkpoint.tensors(tmp_path / "theirs"))
    assert checkpoint.config(tmp_path / "mine") == checkpoint.config(tmp_path / "theirs")
    nibble.verify(tmp_path / "mine", "--against", tmp_path / "wide")


# --- looking at it ---------------------------------------------------------------------------------------------------

def test_inspect(mixtral, nibble: Nibble):
    rows = {row["name"]: row for row in nibble.json("inspect", mixtral)["tensors"]}
    raw = {row["name"]: row for row in nibble.json("inspect", mixtral, "--raw")["tensors"]}
    stack = "model.layers.0.block_sparse_moe.switch_mlp.up_proj"
    weight = rows[f"{stack}.weight"]
    assert (weight["dtype"], weight["scheme"], weight["shape"]) == ("MLX-Q4", "mlx-q4", [4, 128, 64])
    parts = [raw[f"{stack}.{part}"] for part in ("weight", "scales", "biases")]
    assert [part["dtype"] for part in parts] == ["U32", "BF16", "BF16"]
    assert weight["bytes"] == sum(part["bytes"] for part in parts)
    assert (weight["file"], weight["offset"]) == (parts[0]["file"], parts[0]["offset"])
    assert not any(name.endswith((".scales", ".biases")) for name in rows)
    statistics = {row["name"]: row["stats"] for row in nibble.json("inspect", mixtral, "--stats")["tensors"]}
    values = mlx_originals.dequantized(mixtral)
    assert statistics[f"{stack}.weight"]["max"] == values[f"{stack}.weight"].float().max().item()


def test_diff(models, mixtral, nibble: Nibble, tmp_path):
    """Values are those that it stands for."""
    nibble.run("convert", mixtral, "-o", tmp_path / "wide")
    result = nibble.json("diff", mixtral, tmp_path / "wide", expect=DIFFERENT)
    assert not (result["changed"] or result["onlyInA"] or result["onlyInB"])
    assert "same values, MLX-Q4 → BF16: 36 tensors" in nibble.run(
        "diff", mixtral, tmp_path / "wide", expect=DIFFERENT).stdout
    nibble.run("diff", mixtral, mixtral)
    source = models.directory(mlx_models.model("mixtral"))
    result = nibble.json("diff", source, mixtral, expect=DIFFERENT)
    assert len(result["changed"]) == 36 and not (result["onlyInA"] or result["onlyInB"])
    assert all(change["relative"] < 0.2 for change in result["changed"])


def test_verify(models, mixtral, nibble: Nibble, tmp_path):
    nibble.verify(mixtral, "--against", models.directory(mlx_models.model("mixtral")))
    broken = mlx_originals.copied(mixtral, tmp_path)
    nibble.verify(broken)
    mlx_originals.change(broken, lambda tensors: tensors.pop("lm_head.biases"))
    problems = nibble.json("verify", broken, expect=DIFFERENT)["problems"]
    assert [(problem["tensor"], "'.biases' is missing" in problem["problem"]) for problem in problems] == [
        ("lm_head.weight", True)]
    warnings = nibble.run("inspect", broken).stderr
    assert "'.biases' is missing" in warnings


def test_fit(mixtral, nibble: Nibble, tmp_path):
    """As the model that it becomes before it is trained."""
    nibble.run("convert", mixtral, "-o", tmp_path / "wide")
    mine, theirs = nibble.json("fit", mixtral), nibble.json("fit", tmp_path / "wide")
    assert {**mine, "model": None} == {**theirs, "model": None}


def test_split(mixtral, nibble: Nibble, tmp_path):
    """Parts stay as they are, and so does config.json."""
    nibble.run("split", mixtral, "-o", tmp_path / "parts", "--max-shard-size", "100kB")
    nibble.run("join", tmp_path / "parts", "-o", tmp_path / "whole")
    for out in ("parts", "whole"):
        check_values(tmp_path / out, checkpoint.tensors(mixtral))
        assert checkpoint.config(tmp_path / out) == checkpoint.config(mixtral)
        nibble.verify(tmp_path / out)


def test_extract(llama, nibble: Nibble, tmp_path):
    """The difference to what it stands for."""
    nibble.run("convert", llama, "-o", tmp_path / "wide")
    for pair, out in (((llama, tmp_path / "wide"), "a"), ((tmp_path / "wide", llama), "b")):
        result = nibble.run("extract-lora", *pair, "--rank", "4", "-o", tmp_path / out, expect=REJECTED)
        assert "there is nothing to extract" in result.stderr
    tuned = load_file(tmp_path / "wide" / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    factors = [torch.randn(shape, generator=torch.Generator().manual_seed(1)) for shape in ((128, 2), (2, 128))]
    tuned[f"{name}.weight"] = (tuned[f"{name}.weight"].float() + 0.01 * factors[0] @ factors[1]).to(BF16)
    save_file(tuned, tmp_path / "wide" / "model.safetensors", {"format": "pt"})
    report = nibble.json("extract-lora", llama, tmp_path / "wide", "--rank", "4", "-o", tmp_path / "lora")
    assert name in json.dumps(report) and "model.layers.1." not in json.dumps(report["modules"])
