"""A directory in MLX's groups is the one that mlx-lm's own converter makes: names, dtypes, shapes, bytes, config.json."""

import dataclasses
import json
import shutil

import mlx.core as mx
import pytest
from safetensors.torch import save_file

import checkpoint
import mlx_models
from architectures import text
from mlx_models import Model
from tool import ROOT, UNSUPPORTED, USAGE, Nibble

FIXTURE = ROOT / "fixtures" / "sql-llama"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Not to be changed."""
    return mlx_models.Models(tmp_path_factory.mktemp("mlx"))


def long(*values) -> list:
    return [pytest.param(value, marks=pytest.mark.long) for value in values]


def check_same(mine, theirs) -> None:
    found, expected = checkpoint.tensors(mine), checkpoint.tensors(theirs)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert checkpoint.same(found[name], tensor), name
    assert checkpoint.config(mine) == checkpoint.config(theirs)


def compare(source, nibble: Nibble, folder, scheme: str, group: int | None) -> None:
    """Bits of the files, then what the two models say."""
    mine, theirs = folder / "mine", folder / "theirs"
    nibble.quantize(source, mine, "--scheme", scheme, *(["--group-size", group] if group else []))
    mlx_models.convert(source, theirs, scheme, group)
    check_same(mine, theirs)
    found, expected = mlx_models.logits(mine), mlx_models.logits(theirs)
    assert mx.array_equal(found, expected) and not mx.isnan(found).any()
    for folder in (mine, theirs):
        nibble.verify(folder, "--against", source)


@pytest.mark.parametrize("model", mlx_models.rows())
def test_every_class(model: Model, models, nibble: Nibble, tmp_path):
    compare(models.directory(model), nibble, tmp_path, "mlx-q4", 32 if model.name == "llama-odd" else None)


@pytest.mark.parametrize("group", [64, *long(32, 128)])
@pytest.mark.parametrize("scheme", [scheme for scheme in mlx_models.SCHEMES if scheme != "mlx-mxfp4"])
def test_every_width_and_group(scheme, group, models, nibble: Nibble, tmp_path):
    compare(models.directory(mlx_models.model("llama")), nibble, tmp_path, scheme, group)


@pytest.mark.parametrize(("name", "scheme", "group"), [
    ("llama", "mlx-mxfp4", None), ("llama-tied", "mlx-mxfp4", 32), ("llama-biases", "mlx-mxfp4", None),
    ("llama-odd", "mlx-q4", None), ("qwen3-moe", "mlx-q3", None), ("qwen3-moe", "mlx-mxfp4", None),
    ("granite", "mlx-mxfp4", None), ("granite", "mlx-q8", 32), ("mixtral", "mlx-q6", 32), ("gpt2", "mlx-mxfp4", None),
    ("gemma", "mlx-q5", 32), ("qwen2", "mlx-q2", 64),
])
def test_others(name, scheme, group, models, nibble: Nibble, tmp_path):
    compare(models.directory(mlx_models.model(name)), nibble, tmp_path, scheme, group)


def test_shards(nibble: Nibble, tmp_path):
    """A trained model from several files into several files."""
    nibble.quantize(FIXTURE, tmp_path / "mine", "--scheme", "mlx-q4", "--max-shard-size", "300kB")
    assert len(list((tmp_path / "mine").glob("*.safetensors"))) > 3
    mlx_models.convert(FIXTURE, tmp_path / "theirs", "mlx-q4", None)
    check_same(tmp_path / "mine", tmp_path / "theirs")
    assert mx.array_equal(mlx_models.logits(tmp_path / "mine"), mlx_models.logits(tmp_path / "theirs"))


def test_head_that_the_configuration_does_not_mention(models, nibble: Nibble, tmp_path):
    """mlx-lm takes embeddings for tied where transformers does not: config.json says then what the model is."""
    source = shutil.copytree(models.directory(mlx_models.model("llama")), tmp_path / "source")
    stated = checkpoint.config(source)
    assert stated["tie_word_embeddings"] is False
    silent = {key: value for key, value in stated.items() if key != "tie_word_embeddings"}
    (source / "config.json").write_text(json.dumps(silent))
    nibble.quantize(source, tmp_path / "mine", "--scheme", "mlx-q4")
    mlx_models.convert(models.directory(mlx_models.model("llama")), tmp_path / "theirs", "mlx-q4", None)
    check_same(tmp_path / "mine", tmp_path / "theirs")


@pytest.mark.parametrize("name", ["qwen3", "qwen3-moe", "granite", *long("olmo3", "glm4", "ernie", "exaone4")])
def test_configuration_of_transformers_5(name, models, nibble: Nibble, tmp_path):
    """mlx-lm's converter cannot read it: members that its class must have are there under other names."""
    old = mlx_models.model(name)
    change = {key: value for key, value in old.change.items() if key == "sliding_window_pattern"}
    new = dataclasses.replace(old, is_new=True, change=change).save(tmp_path)
    outputs = []
    for source, out in ((new, tmp_path / "from-new"), (models.directory(old), tmp_path / "from-old")):
        nibble.quantize(source, out, "--scheme", "mlx-q4")
        outputs.append(mlx_models.logits(out))
    assert mx.array_equal(*outputs)


def test_ropes_that_are_not_read(models, nibble: Nibble, tmp_path):
    def warnings(name: str) -> str:
        source = models.directory(mlx_models.model(name))
        return json.dumps(nibble.quantize(source, tmp_path / name, "--scheme", "mlx-q4")["warnings"])

    assert "mlx-lm's llama does not read 'rope_parameters'" in warnings("llama-new")
    assert "rope_parameters" not in warnings("llama")


def test_prefix_of_gpt2(models, nibble: Nibble, tmp_path):
    """transformers writes names with it, and mlx-lm loads them without."""
    source = models.directory(mlx_models.model("gpt2"))
    prefixed = dataclasses.replace(mlx_models.model("gpt2"), name="prefixed", prefix="").save(tmp_path)
    tensors = {f"transformer.{name}": tensor for name, tensor in checkpoint.tensors(source).items()}
    save_file(tensors, prefixed / "model.safetensors", {"format": "pt"})
    for folder, out in ((source, "plain"), (prefixed, "prefixed-out")):
        nibble.quantize(folder, tmp_path / out, "--scheme", "mlx-q4")
    check_same(tmp_path / "plain", tmp_path / "prefixed-out")


def test_from_gguf_and_from_four_bits(models, nibble: Nibble, tmp_path):
    """The values of the source, in groups: those of a GGUF file, and those that 4 bits stand for."""
    source = models.directory(mlx_models.model("llama"))
    nibble.run("convert", FIXTURE, "-o", tmp_path / "model.gguf")
    nibble.quantize(tmp_path / "model.gguf", tmp_path / "mine", "--scheme", "mlx-q4")
    nibble.quantize(FIXTURE, tmp_path / "direct", "--scheme", "mlx-q4")
    found, expected = checkpoint.tensors(tmp_path / "mine"), checkpoint.tensors(tmp_path / "direct")
    assert found.keys() == expected.keys()
    assert all(checkpoint.same(found[name], expected[name]) for name in expected)
    nibble.quantize(source, tmp_path / "nf4")
    nibble.run("quantize", tmp_path / "nf4", "-o", tmp_path / "refused", "--scheme", "mlx-q4", expect=UNSUPPORTED)
    nibble.run("convert", tmp_path / "nf4", "-o", tmp_path / "wide")
    nibble.quantize(tmp_path / "nf4", tmp_path / "again", "--scheme", "mlx-q4", "--force-requantize")
    nibble.quantize(tmp_path / "wide", tmp_path / "twice", "--scheme", "mlx-q4")
    found, expected = checkpoint.tensors(tmp_path / "again"), checkpoint.tensors(tmp_path / "twice")
    assert all(checkpoint.same(found[name], expected[name]) for name in expected)
    assert checkpoint.config(tmp_path / "again") == checkpoint.config(tmp_path / "twice")


def test_what_is_said_of_it(models, nibble: Nibble, tmp_path):
    out = tmp_path / "out"
    text = nibble.run(
        "quantize", models.directory(mlx_models.model("qwen3-moe")), "-o", out, "--scheme", "mlx-q3").stdout
    # Two layers of 4 projections, 3 stacks and a router, embeddings and head.
    assert "quantized: 16 tensors to MLX-Q3, 2 to MLX-Q8" in text
    manifest = json.loads((out / "nibble-manifest.json").read_text())
    assert manifest["options"]["scheme"] == "mlx-q3" and manifest["options"]["groupSize"] == 64
    for options, shape in (((), [4, 64, 64]), (("--raw",), [4, 64, 6])):
        rows = {row["name"]: row for row in nibble.json("inspect", out, *options)["tensors"]}
        assert rows["model.layers.0.mlp.switch_mlp.up_proj.weight"]["shape"] == shape
    nibble.verify(out)
    damaged = bytearray((out / "model.safetensors").read_bytes())
    damaged[-1] ^= 1
    (out / "model.safetensors").write_bytes(damaged)
    nibble.run("verify", out, expect=1)
    result = nibble.run("verify", out, "--against", models.directory(mlx_models.model("qwen3-moe")), expect=1)
    assert "1 byte is not that of" in result.stdout
    again = nibble.run("quantize", out, "-o", tmp_path / "again", "--scheme", "mlx-q4", expect=UNSUPPORTED)
    assert "already quantized (MLX)" in again.stderr


REFUSED = [
    (Model("classifier", "LlamaForSequenceClassification", text()), "of model_type 'llama' mlx-lm loads LlamaForCausalLM"),
    (Model("opt", "OPTForCausalLM", text(ffn_dim=128, word_embed_proj_dim=64)), "model_type 'opt'"),
    (Model("qwen3-biases", "Qwen3ForCausalLM", text(attention_bias=True)), "is a bias that mlx-lm's qwen3 does not have"),
    (Model("starcoder2-no-biases", "Starcoder2ForCausalLM", text(use_bias=False)), "is missing, which mlx-lm's starcoder2"),
    (Model("glm4-tied", "Glm4ForCausalLM", text(head_dim=16, tie_word_embeddings=True)), "lm_head.weight"),
    (Model("gemma-untied", "GemmaForCausalLM", text(head_dim=16, tie_word_embeddings=False)), "lm_head.weight"),
]


@pytest.mark.parametrize(("model", "reason"), REFUSED, ids=lambda value: getattr(value, "name", ""))
def test_refused(model: Model, reason, nibble: Nibble, tmp_path):
    source = model.save(tmp_path)
    result = nibble.run("quantize", source, "-o", tmp_path / "out", "--scheme", "mlx-q4", expect=UNSUPPORTED)
    assert reason in result.stderr
    assert not (tmp_path / "out").exists()


def test_single_file_is_refused(models, nibble: Nibble, tmp_path):
    file = models.directory(mlx_models.model("llama")) / "model.safetensors"
    result = nibble.run("quantize", file, "-o", tmp_path / "out", "--scheme", "mlx-q4", expect=UNSUPPORTED)
    assert "config.json" in result.stderr


@pytest.mark.parametrize(("options", "reason"), [
    (("--scheme", "mlx-q4", "--group-size", "48"), "48 is not one of 32, 64, 128"),
    (("--scheme", "mlx-mxfp4", "--group-size", "64"), "64 is not one of 32"),
    (("--scheme", "mlx-q7"), "did you mean 'mlx-q"),
    (("--scheme", "nf4", "--group-size", "64"), "option '--group-size' is for MLX"),
    (("--scheme", "mlx-q4", "--no-double-quant"), "is for NF4 and FP4"),
])
def test_command_line(options, reason, nibble: Nibble, tmp_path):
    result = nibble.run("quantize", FIXTURE, "-o", tmp_path / "out", *options, expect=USAGE)
    assert reason in result.stderr


def test_output_is_a_directory(nibble: Nibble, tmp_path):
    result = nibble.run("quantize", FIXTURE, "-o", tmp_path / "out.gguf", "--scheme", "mlx-q4", expect=USAGE)
    assert "are written as a directory" in result.stderr
