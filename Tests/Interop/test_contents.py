"""What loaders take passes every verb; what they do not is refused, with the tensor's name."""

import json
import pathlib
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from architectures import CASES, case
from gguf_families import FAMILIES
from tool import DIFFERENT, REJECTED

PARAMETERS = [
    pytest.param(case, id=case.name, marks=[pytest.mark.long] if case.long else []) for case in CASES
]


def changed(source: pathlib.Path, folder: pathlib.Path, tensors=None, **settings) -> pathlib.Path:
    """A copy with its tensors, a dictionary, or members of its config.json changed."""
    shutil.copytree(source, folder)
    if tensors:
        weights = load_file(source / "model.safetensors")
        save_file(tensors(weights) or weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))
    return folder


def without(name: str):
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


def refuses(nibble, model: pathlib.Path, tensor: str, out: pathlib.Path) -> str:
    """Every verb names the tensor; the problem."""
    for verb in (["quantize"], ["convert"], ["convert", "--dtype", "float32"]):
        error = nibble.json(*verb, model, "-o", out, expect=REJECTED)["error"]
        assert error["tensor"] == tensor, error
    assert not out.exists()
    problems = nibble.json("verify", model, expect=DIFFERENT)["problems"]
    assert tensor in [problem["tensor"] for problem in problems], problems
    return error["message"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("llama") / "model"
    case("llama").create().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("row", PARAMETERS)
def test_whole_models_pass(row, nibble, tmp_path):
    """Every row of the table, and without one of its matrices none."""
    source = tmp_path / "source"
    row.create().save_pretrained(source)
    nibble.verify(source)
    assert not [w for w in nibble.json("convert", source, "-o", tmp_path / "out", "--dry-run")["warnings"]]

    weights = load_file(source / "model.safetensors")
    layers = [name for name in weights if ".1." in name and name.endswith("weight") and weights[name].ndim == 2]
    if "ForCausalLM" not in row.model and "LMHead" not in row.model or not layers:
        return  # The classes with other heads are held to their base model where that is known.
    name = sorted(layers)[-1]
    broken = changed(source, tmp_path / "broken", without(name))
    report = nibble.json("verify", broken, expect=DIFFERENT)
    assert report["problems"]
    error = nibble.json("convert", broken, "-o", tmp_path / "out", expect=REJECTED)["error"]
    assert "missing" in error["message"] or "lacks" in error["message"], error


@pytest.mark.parametrize("family", [pytest.param(f, id=f.name, marks=[pytest.mark.long] if f.long else []) for f in FAMILIES])
def test_families_pass(family, families, nibble):
    nibble.verify(families.directory(family))


def rows(change: int):
    def apply(tensors):
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            weight = tensors[name]
            tensors[name] = torch.cat([weight, weight[:change]]) if change > 0 else weight[:change].clone()
    return apply


def emptied(tensors):
    return {name: torch.empty(0, dtype=torch.bfloat16) for name in tensors}


HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
BROKEN = {
    "missing": (without("model.layers.1.mlp.up_proj.weight"),
                "model.layers.1.mlp.up_proj.weight", "is missing"),
    "no-head": (without(HEAD), HEAD, "is missing, and tie_word_embeddings is false"),
    "more-rows": (rows(8), EMBEDDING, "vocab_size"),
    "fewer-rows": (rows(-8), EMBEDDING, "vocab_size"),
    "other-head": (lambda tensors: tensors.update({HEAD: tensors[HEAD].repeat(2, 1)}), HEAD, "vocab_size"),
    "zero-3": (emptied, HEAD, "no values"),
    "foreign": (lambda tensors: {f"x.{name}": weight for name, weight in tensors.items()}, "x.lm_head.weight",
                "is no parameter of LlamaForCausalLM"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_refused_as_loaders_do(name, llama, nibble, tmp_path):
    """transformers raises, or fills in random values."""
    change, tensor, message = BROKEN[name]
    broken = changed(llama, tmp_path / "broken", change)
    try:
        _, loading = transformers.AutoModelForCausalLM.from_pretrained(broken, output_loading_info=True)
        assert loading["missing_keys"]
    except RuntimeError as error:
        assert "mismatched" in str(error)
    problems = nibble.json("verify", broken, expect=DIFFERENT)["problems"]
    assert tensor in [problem["tensor"] for problem in problems], problems
    assert any(message in problem["problem"] for problem in problems), problems
    for verb in (["quantize"], ["convert"], ["convert", "--dtype", "float32"]):
        error = nibble.json(*verb, broken, "-o", tmp_path / "out", expect=REJECTED)["error"]
        assert error["tensor"], error
    # A file on its own is held to nothing.
    nibble.run("convert", broken / "model.safetensors", "-o", tmp_path / "out")


TOLERATED = {
    "unused": lambda tensors: tensors.update({"model.layers.0.extra.weight": torch.zeros(4)}),
    "tied-head-left-out": without(HEAD),
    "tied-embedding-left-out": without(EMBEDDING),
    "buffers": lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)}),
}


@pytest.mark.parametrize("name", TOLERATED)
def test_what_loaders_tolerate(name, llama, nibble, tmp_path):
    model = changed(llama, tmp_path / "model", TOLERATED[name], tie_word_embeddings=name.startswith("tied"))
    _, loading = transformers.AutoModelForCausalLM.from_pretrained(model, output_loading_info=True)
    assert not loading["missing_keys"]
    nibble.verify(model)
    warnings = nibble.json("convert", model, "-o", tmp_path / "out")["warnings"]
    assert len(warnings) == (name == "unused"), warnings


@pytest.mark.parametrize("words", ["_orig_mod.", "module.", "_fsdp_wrapped_module.", "module._orig_mod."])
def test_wrappers(words, llama, nibble, tmp_path):
    """What torch.compile, DDP and FSDP put in front of a name goes, and the model is what it was."""
    def wrap(tensors):
        return {words + name.replace("mlp.", "_checkpoint_wrapped_module.mlp."): tensor
                for name, tensor in tensors.items()}
    wrapped = changed(llama, tmp_path / "wrapped", wrap)
    warnings = nibble.json("convert", wrapped, "-o", tmp_path / "out")["warnings"]
    assert len(warnings) == 1 and "training wrappers" in warnings[0]
    assert nibble.json("diff", llama, tmp_path / "out")["equal"]
    _, loading = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loading.values())
    assert nibble.json("verify", wrapped, expect=DIFFERENT)["problems"]


def test_wrapped_twice(llama, nibble, tmp_path):
    def double(tensors):
        return tensors | {f"_orig_mod.{HEAD}": tensors[HEAD].clone()}
    double = changed(llama, tmp_path / "double", double)
    assert "one of them must go" in nibble.json("convert", double, "-o", tmp_path / "out", expect=REJECTED)["error"]["message"]


def test_16_bits_that_claim_to_be_4(llama, nibble, tmp_path):
    settings = {"load_in_4bit": True, "quant_method": "bitsandbytes"}
    claims = changed(llama, tmp_path / "claims", quantization_config=settings)
    message = refuses(nibble, claims, "model.layers.0.mlp.down_proj.weight", tmp_path / "out")
    assert "quantization_config" in message


@pytest.mark.parametrize("settings", [
    {"quantization": {"group_size": 64, "bits": 4}},
    {"quantization": {"group_size": 64, "bits": 4, "mode": "affine"},
     "quantization_config": {"group_size": 64, "bits": 4, "mode": "affine"}},
])
def test_mlx(settings, llama, nibble, tmp_path):
    model = changed(llama, tmp_path / "model", **settings)
    out = tmp_path / "out"
    for verb in (["quantize"], ["convert", "--dtype", "float32"]):
        error = nibble.json(*verb, model, "-o", out, expect=69)["error"]
        assert "(MLX)" in error["message"]
    error = nibble.json("convert", model, "-o", tmp_path / "out.gguf", expect=69)["error"]
    assert "(MLX)" in error["message"]
    for pair in ((model, llama), (llama, model)):
        error = nibble.json("extract-lora", *pair, "--rank", "4", "-o", out, expect=69)["error"]
        assert "(MLX)" in error["message"]


def test_quantization_that_is_none(llama, nibble, tmp_path):
    model = changed(llama, tmp_path / "model", quantization=None)
    nibble.quantize(model, tmp_path / "out")


def test_gguf_without_architecture(families, nibble, tmp_path):
    """No loader opens one. `edit`, which mends it, only warns; parts go apart and together as they are."""
    model, out = tmp_path / "model.gguf", tmp_path / "out.gguf"
    nibble.run("convert", families.directory(FAMILIES[0]), "-o", model)
    nibble.verify(model)
    nibble.run("edit", model, "--remove", "general.architecture")
    (tmp_path / "model.gguf.nibble-manifest.json").unlink(missing_ok=True)
    for verb in (["convert", "--dtype", "float32"], ["quantize", "--scheme", "q8_0"]):
        error = nibble.json(*verb, model, "-o", out, expect=REJECTED)["error"]
        assert "'general.architecture' is missing" in error["message"]
    problems = nibble.json("verify", model, expect=DIFFERENT)["problems"]
    assert len(problems) == 1 and "'general.architecture' is missing" in problems[0]["problem"]
    nibble.run("edit", model, "--set", "general.architecture=llama")
    nibble.verify(model)


SMALL = dict(
    hidden_size=64, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
    vocab_size=128)
UNEVEN = {
    "experts in every second layer": lambda: transformers.Llama4ForCausalLM(transformers.Llama4TextConfig(
        **SMALL, intermediate_size_mlp=64, head_dim=16, num_local_experts=2, interleave_moe_layer_step=2)),
    "attention in one layer": lambda: transformers.BambaForCausalLM(transformers.BambaConfig(
        **SMALL, attn_layer_indices=[1], mamba_n_heads=8, mamba_d_head=16, mamba_d_state=16, mamba_n_groups=1)),
    "no experts": lambda: transformers.GraniteMoeHybridForCausalLM(transformers.GraniteMoeHybridConfig(
        **SMALL, shared_intermediate_size=64, num_local_experts=0, layer_types=["attention"] * 4)),
    "no shared experts": lambda: transformers.Ernie4_5_MoeForCausalLM(transformers.Ernie4_5_MoeConfig(
        **SMALL, moe_intermediate_size=64, moe_num_experts=4, moe_k=2, moe_num_shared_experts=0)),
}


@pytest.mark.parametrize("name", UNEVEN)
def test_layers_that_differ_by_configuration(name, nibble, tmp_path):
    """What some layers lack there is right; a name outside of layers is missed as anywhere."""
    UNEVEN[name]().to(torch.bfloat16).save_pretrained(tmp_path / "model")
    nibble.run("verify", tmp_path / "model")
    nibble.run("convert", tmp_path / "model", "-o", tmp_path / "out")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    del weights["model.embed_tokens.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    nibble.run("convert", tmp_path / "model", "-o", tmp_path / "again", expect=REJECTED)


@pytest.mark.parametrize("cls", ["GraniteMoeForCausalLM", "MixtralForCausalLM"])
def test_experts_do_not_keep_their_layers(cls, nibble, tmp_path):
    """An entry of the skip list for experts leaves the attention beside them to be quantized."""
    config = getattr(transformers, cls.replace("ForCausalLM", "Config"))(
        **SMALL | {"num_hidden_layers": 2}, num_local_experts=4, num_experts_per_tok=2)
    getattr(transformers, cls)(config).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    nibble.run("quantize", tmp_path / "model", "-o", tmp_path / "nf4")
    assert sum(name.endswith(".absmax") for name in load_file(tmp_path / "nf4" / "model.safetensors")) == 8
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "nf4")
    assert type(loaded.model.layers[1].self_attn.q_proj).__name__ == "Linear4bit"
