"""Models that exist only quantized as sources: bit for bit the values that their method's arithmetic gives."""

import json

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

import checkpoint
import quantized_sources
from architectures import BF16, F32, text
from checkpoint import same
from quantized_modules import EVERY as METHODS
from quantized_sources import Method
from tool import DIFFERENT, ROOT, UNSUPPORTED, USAGE, Nibble

FIXTURE = ROOT / "fixtures" / "sql-llama"
Q = "model.layers.0.self_attn.q_proj"


def by_name(*names: str):
    return pytest.mark.parametrize("method", [m for m in METHODS if m.name in names], ids=lambda m: m.name)


every = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


def check(out, expected: dict, dtype: torch.dtype | None = None) -> None:
    found = checkpoint.tensors(out)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert same(found[name], tensor if dtype is None else tensor.to(dtype)), name


@every
def test_values(method: Method, nibble: Nibble, tmp_path):
    """Config.json loses the settings, and transformers loads what is left as a plain model."""
    source, expected = quantized_sources.create(tmp_path / "source", method)
    nibble.json("convert", source, "-o", tmp_path / "out")
    check(tmp_path / "out", expected)
    nibble.run("convert", source, "-o", tmp_path / "wide", "--dtype", "float32")
    check(tmp_path / "wide", expected, F32)
    config = checkpoint.config(source)
    del config["quantization_config"]
    assert checkpoint.config(tmp_path / "out") == config
    nibble.verify(tmp_path / "out")
    nibble.verify(tmp_path / "out", "--against", source)
    _, information = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(information.values()), information


@every
def test_inspect(method: Method, nibble: Nibble, tmp_path):
    source, expected = quantized_sources.create(tmp_path / "source", method)
    nibble.verify(source)
    rows = {row["name"]: row for row in nibble.json("inspect", source)["tensors"]}
    raw = {row["name"]: row for row in nibble.json("inspect", source, "--raw")["tensors"]}
    for name, tensor in expected.items():
        assert rows[name]["shape"] == list(tensor.shape)
        if module := quantized_sources.linear(name):
            assert (rows[name]["dtype"], rows[name]["scheme"]) == (method.type_name, method.type_name.lower())
            parts = [row for part, row in raw.items() if part.startswith(f"{module}.") and part not in rows]
            parts += [raw[name]] if name in raw else []
            assert rows[name]["bytes"] == sum(part["bytes"] for part in parts)


@by_name("fp8-block", "fp8-fp4", "mxfp8", "w4a16", "nvfp4", "gptq-4", "awq", "modelopt-fp8", "int8", "hqq-3", "hqq-4-columns",
         "torchao-int8", "torchao-int4-packed", "auto-round-nvfp4")
def test_quantize_again(method: Method, nibble: Nibble, tmp_path):
    """Only when it is asked for, and then as the dequantized model."""
    source, _ = quantized_sources.create(tmp_path / "source", method, shards=3)
    nibble.run("convert", source, "-o", tmp_path / "wide")
    refused = nibble.run("quantize", source, "-o", tmp_path / "none", "--scheme", "nf4", expect=UNSUPPORTED)
    assert f"is already quantized ({method.method}); --force-requantize" in refused.stderr
    nibble.quantize(source, tmp_path / "mine", "--scheme", "nf4", "--force-requantize")
    nibble.quantize(tmp_path / "wide", tmp_path / "theirs", "--scheme", "nf4")
    check(tmp_path / "mine", checkpoint.tensors(tmp_path / "theirs"))
    assert checkpoint.config(tmp_path / "mine") == checkpoint.config(tmp_path / "theirs")


@by_name("fp8-tensor", "fbgemm", "nvfp4", "modelopt-nvfp4", "modelopt-fp8")
def test_scales_of_activations(method: Method, nibble: Nibble, tmp_path):
    """Nothing in 16 bits has a use for them; they are counted."""
    source, expected = quantized_sources.create(tmp_path / "source", method)
    left = load_file(source / "model.safetensors").keys() - expected.keys()
    left = {name for name in left if "input" in name or name.endswith(".k_scale")}
    warnings = json.dumps(nibble.json("convert", source, "-o", tmp_path / "out")["warnings"])
    assert left and all(name in warnings for name in left)


@by_name("fp8-block")
def test_diff(method: Method, nibble: Nibble, tmp_path):
    source, _ = quantized_sources.create(tmp_path / "source", method)
    nibble.run("convert", source, "-o", tmp_path / "wide")
    result = nibble.run("diff", source, tmp_path / "wide", expect=DIFFERENT)
    assert "same values, FP8-E4M3 → BF16: 7 tensors" in result.stdout
    nibble.run("diff", source, source)


@by_name("fp8-block", "w4a16", "hqq-4", "torchao-int4")
def test_gguf(method: Method, nibble: Nibble, tmp_path):
    """The file that the dequantized model gives."""
    files = []
    source = quantized_sources.packed(FIXTURE, tmp_path / "a" / "model", method)
    (tmp_path / "b").mkdir()
    nibble.run("convert", source, "-o", tmp_path / "b" / "model")
    for folder in ("a", "b"):
        files.append(tmp_path / folder / "model.gguf")
        nibble.run("convert", tmp_path / folder / "model", "-o", files[-1])
    assert files[0].read_bytes() == files[1].read_bytes()


@by_name("fp8-block", "w4a16", "gptq-4")
def test_merge(method: Method, nibble: Nibble, tmp_path):
    """What the dequantized base gives, in 16 bits and in one pass with NF4."""
    source, _ = quantized_sources.create(tmp_path / "source", method)
    nibble.run("convert", source, "-o", tmp_path / "wide")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "wide")
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    model.save_pretrained(tmp_path / "adapter")
    for options in ((), ("--scheme", "nf4")):
        outputs = []
        for folder in (source, tmp_path / "wide"):
            outputs.append(tmp_path / f"{folder.name}-{len(options)}")
            nibble.json("merge", folder, tmp_path / "adapter", "-o", outputs[-1], *options)
        check(outputs[0], checkpoint.tensors(outputs[1]))
        assert checkpoint.config(outputs[0]) == checkpoint.config(outputs[1])
    refused = nibble.run(
        "merge", source, tmp_path / "adapter", "-o", tmp_path / "none", "--base-as-trained", "nf4", expect=USAGE)
    assert f"this one is quantized ({method.method})" in refused.stderr


@by_name("fp8-block", "w4a16", "gptq-4", "nvfp4", "hqq-4", "torchao-int4-packed")
def test_split(method: Method, nibble: Nibble, tmp_path):
    """Parts stay as they are, and so does config.json."""
    source, _ = quantized_sources.create(tmp_path / "source", method)
    nibble.run("split", source, "-o", tmp_path / "parts", "--max-shard-size", "100kB")
    nibble.run("join", tmp_path / "parts", "-o", tmp_path / "whole")
    for out in ("parts", "whole"):
        check(tmp_path / out, checkpoint.tensors(source))
        assert checkpoint.config(tmp_path / out) == checkpoint.config(source)
        for file in (tmp_path / out).glob("*.safetensors"):
            assert checkpoint.header(file) == checkpoint.header(source / "model.safetensors")


def test_transformers_agrees(nibble: Nibble, tmp_path):
    """Its own dequantization, where blocks are whole: it has smaller ones in a matrix that they do not divide."""
    torch.manual_seed(6)
    config = transformers.Qwen3Config(**text(256, layers=1, head_dim=64))
    model = transformers.Qwen3ForCausalLM(config).to(BF16)
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name, tensor in model.state_dict().items():
        if module := quantized_sources.linear(name):
            tensors |= quantized_sources.fp8_block("float32")(module, *tensor.shape, generator)[0]
        else:
            tensors[name] = tensor
    settings = quantized_sources.BLOCKS | {"modules_to_not_convert": ["lm_head"]}
    stated = model.config.to_dict() | {"dtype": "bfloat16", "architectures": ["Qwen3ForCausalLM"]}
    source = quantized_sources.save(tmp_path / "source", tensors, stated | {"quantization_config": settings})
    nibble.run("convert", source, "-o", tmp_path / "out")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        source, dtype=BF16, quantization_config=transformers.FineGrainedFP8Config(dequantize=True))
    check(tmp_path / "out", loaded.state_dict())


def test_gpt_oss(nibble: Nibble, tmp_path):
    """As transformers reads the experts: the other way round."""
    torch.manual_seed(7)
    config = transformers.GptOssConfig(**text(
        64, layers=1, head_dim=16, intermediate_size=96, num_local_experts=3, num_experts_per_tok=2))
    model = transformers.GptOssForCausalLM(config).to(BF16)
    tensors, generator = dict(model.state_dict()), torch.Generator().manual_seed(1)
    expected = dict(tensors)
    for name, rows, columns in (("gate_up_proj", 192, 64), ("down_proj", 64, 96)):
        name = f"model.layers.0.mlp.experts.{name}"
        blocks = quantized_sources.codes((3, rows, columns // 32, 16), generator)
        scales = torch.randint(90, 160, blocks.shape[:-1], generator=generator, dtype=torch.uint8)
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        del tensors[name]
        expected[name] = convert_moe_packed_tensors(blocks, scales, dtype=BF16)
    settings = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
    stated = model.config.to_dict() | {"dtype": "bfloat16", "architectures": ["GptOssForCausalLM"]}
    source = quantized_sources.save(tmp_path / "source", tensors, stated | {"quantization_config": settings})
    nibble.run("convert", source, "-o", tmp_path / "out")
    check(tmp_path / "out", expected)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    check(tmp_path / "out", loaded.state_dict())
    rows = {row["name"]: row for row in nibble.json("inspect", source)["tensors"]}
    row = rows["model.layers.0.mlp.experts.down_proj"]
    assert (row["dtype"], row["shape"]) == ("MXFP4", [3, 96, 64])


@pytest.mark.parametrize("name", ["gptq-4", "modelopt-nvfp4"])
def test_settings_of_their_own(name, nibble: Nibble, tmp_path):
    """A file beside config.json has them, and does not go along."""
    method = next(method for method in METHODS if method.name == name)
    source, expected = quantized_sources.create(tmp_path / "source", method)
    config = checkpoint.config(source)
    settings = config.pop("quantization_config")
    (source / "config.json").write_text(json.dumps(config))
    file = source / ("quantize_config.json" if name == "gptq-4" else "hf_quant_config.json")
    del settings["quant_method"]
    if name != "gptq-4":
        settings = {"producer": {"name": "modelopt"}, "quantization": settings}
    file.write_text(json.dumps(settings))
    nibble.run("convert", source, "-o", tmp_path / "out")
    check(tmp_path / "out", expected)
    assert not (tmp_path / "out" / file.name).exists()


def test_settings_that_are_not_there(nibble: Nibble, tmp_path):
    """HQQ itself writes none: its tensors say all."""
    method = next(method for method in METHODS if method.name == "hqq-4")
    source, expected = quantized_sources.create(tmp_path / "source", method)
    config = checkpoint.config(source)
    del config["quantization_config"]
    (source / "config.json").write_text(json.dumps(config))
    nibble.run("convert", source, "-o", tmp_path / "out")
    check(tmp_path / "out", expected)
    assert checkpoint.config(tmp_path / "out") == config


def test_settings_of_a_part(nibble: Nibble, tmp_path):
    """A model of several parts has them in the configuration of its language model, and its dtype too."""
    method = next(method for method in METHODS if method.name == "w4a16-f16")
    source, expected = quantized_sources.create(tmp_path / "source", method)
    config = checkpoint.config(source)
    config["text_config"] = {"quantization_config": config.pop("quantization_config"), "dtype": config.pop("dtype")}
    (source / "config.json").write_text(json.dumps(config))
    nibble.run("convert", source, "-o", tmp_path / "out")
    check(tmp_path / "out", expected)
    del config["text_config"]["quantization_config"]
    assert checkpoint.config(tmp_path / "out") == config


@pytest.mark.parametrize("name", ["gptq-ordered", "fp8-tensor", "w4a16-ordered"])
def test_parts_of_one_storage(name, nibble: Nibble, tmp_path):
    """In a file of PyTorch parts of weights may be one tensor under several names: each weight has its own."""
    method = next(method for method in METHODS if method.name == name)
    source, _ = quantized_sources.create(tmp_path / "source", method)
    tensors = load_file(source / "model.safetensors")
    part = {"gptq-ordered": "g_idx", "fp8-tensor": "weight_scale", "w4a16-ordered": "weight_g_idx"}[name]
    for module in ("k_proj", "v_proj"):
        tensors[f"{Q[:-6]}{module}.{part}"] = tensors[f"{Q}.{part}"]
    files = tmp_path / "files"
    files.mkdir()
    (files / "config.json").write_bytes((source / "config.json").read_bytes())
    torch.save(tensors, files / "pytorch_model.bin")
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, source / "model.safetensors")
    for folder in (source, files):
        nibble.run("convert", folder, "-o", tmp_path / f"{folder.name}-out")
    check(tmp_path / "files-out", checkpoint.tensors(tmp_path / "source-out"))


def test_patterns_that_overlap(nibble: Nibble, tmp_path):
    """As compressed-tensors has it, of those that match the first counts in the order of their texts."""
    four = next(method for method in METHODS if method.name == "w4a16")
    eight = next(method for method in METHODS if method.name == "w8a16")
    source, expected = quantized_sources.create(tmp_path / "source", four)
    tensors = load_file(source / "model.safetensors")
    name = "model.layers.0.mlp.down_proj"
    made, expected[f"{name}.weight"] = eight.pack(
        name, *expected[f"{name}.weight"].shape, torch.Generator().manual_seed(1))
    save_file({key: tensor.contiguous() for key, tensor in (tensors | made).items()}, source / "model.safetensors")
    config = checkpoint.config(source)
    groups = {"a": four, "b": eight}
    config["quantization_config"]["config_groups"] = {
        key: method.settings["config_groups"]["group_0"] for key, method in groups.items()}
    stated = config["quantization_config"]["config_groups"]
    stated["a"] = stated["a"] | {"targets": ["re:.*mlp.*", "re:.*self_attn.*"]}
    stated["b"] = stated["b"] | {"targets": ["re:.*down_proj"]}
    (source / "config.json").write_text(json.dumps(config))
    nibble.run("convert", source, "-o", tmp_path / "out")
    check(tmp_path / "out", expected)


@by_name("gptq-4", "awq")
def test_dtype_of_scales(method: Method, nibble: Nibble, tmp_path):
    """Of a model whose configuration names no dtype, as loaders take it from what is stored: no bit is lost."""
    source, expected = quantized_sources.create(tmp_path / "source", method)
    config = checkpoint.config(source)
    del config["dtype"]
    (source / "config.json").write_text(json.dumps(config))
    nibble.run("convert", source, "-o", tmp_path / "out")
    check(tmp_path / "out", expected)
