"""A directory of compressed-tensors: byte for byte what its own functions make of a weight, and loaded by transformers."""

import json

import pytest
import torch
import transformers
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationScheme, preset_name_to_scheme
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from safetensors.torch import save_file

import checkpoint
from tool import UNSUPPORTED, USAGE, Nibble

PRESETS = {
    "fp8-channel": "FP8_DYNAMIC",
    "fp8-block": "FP8_BLOCK",
    "w4a16": "W4A16",
    "nvfp4a16": "NVFP4A16",
    "mxfp4a16": "MXFP4A16",
}
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
FUSED = [("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")]


def scheme(name: str) -> QuantizationScheme:
    return preset_name_to_scheme(PRESETS[name], targets=["Linear"])


def blocks(weight: torch.Tensor, name: str) -> torch.Tensor:
    """[scale rows, scale columns, values of the block], short blocks filled with zeros."""
    args = scheme(name).weights
    rows, columns = args.block_structure or (1, args.group_size or weight.shape[1])
    below, right = -weight.shape[0] % rows, -weight.shape[1] % columns
    padded = torch.nn.functional.pad(weight, (0, right, 0, below))
    grid = padded.reshape(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns)
    return grid.transpose(1, 2).flatten(2)


def expected(weight: torch.Tensor, name: str, relatives: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The stored tensors of a weight by the last part of their names."""
    args = scheme(name).weights
    glob = None
    if name == "nvfp4a16":
        largest = max(relatives, key=lambda relative: relative.abs().max())
        glob = generate_gparam(largest.min().reshape(1), largest.max().reshape(1))
    found = blocks(weight, name)
    scales, zeros = calculate_qparams(found.amin(-1), found.amax(-1), args, glob)
    state = {"weight": weight, "weight_scale": scales, "weight_zero_point": zeros}
    if glob is not None:
        state["weight_global_scale"] = glob
    return compressed(state, name)


def compressed(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    forms = {
        "fp8-channel": "float-quantized",
        "fp8-block": "float-quantized",
        "w4a16": "pack-quantized",
        "nvfp4a16": "nvfp4-pack-quantized",
        "mxfp4a16": "mxfp4-pack-quantized",
    }
    return BaseCompressor.get_value_from_registry(forms[name]).compress(state, scheme(name))


def ordinary_rows(weight: torch.Tensor) -> torch.Tensor:
    return (weight.unflatten(1, (-1, 32)).abs().amax(-1) >= 2.0**-14).all(1)


def model(folder, dtype: str, **options) -> transformers.PreTrainedModel:
    """Rows of 384 and 640 values; 200 outputs fill no block of 128."""
    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        hidden_size=384, intermediate_size=640, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2,
        vocab_size=200, tie_word_embeddings=False, **options,
    )
    made = transformers.LlamaForCausalLM(config).to(DTYPES[dtype])
    with torch.no_grad():
        layer = made.model.layers[0].self_attn
        # A group of zeros, a negative zero, ties, and magnitudes far apart.
        layer.q_proj.weight[0, :128] = 0
        layer.q_proj.weight[1, :4] = torch.tensor([-0.0, 0.5, -0.25, 6.0])
        layer.k_proj.weight[3] *= 2.0**-10
        layer.v_proj.weight[:2] *= 40
    made.save_pretrained(folder)
    return made


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PRESETS)
def test_same_bytes(name, dtype, nibble: Nibble, tmp_path):
    model(tmp_path / "source", dtype)
    nibble.quantize(tmp_path / "source", tmp_path / "out", "--scheme", name)
    source, out = checkpoint.tensors(tmp_path / "source"), checkpoint.tensors(tmp_path / "out")
    left = dict(out)
    for key, weight in source.items():
        if key in ("lm_head.weight", "model.embed_tokens.weight") or weight.dim() < 2:
            assert checkpoint.same(left.pop(key), weight), key
            continue
        module = key.removesuffix(".weight")
        path, last = module.rsplit(".", 1)
        names = next((group for group in FUSED if last in group), (last,))
        relatives = [source[f"{path}.{relative}.weight"] for relative in names]
        for part, tensor in expected(weight, name, relatives).items():
            found = left.pop(f"{module}.{part}")
            if name == "mxfp4a16" and dtype == "float16":
                # There a group that is subnormal in float16 gets the scale 1, and loses its values.
                found, tensor = (each[ordinary_rows(weight)] for each in (found, tensor))
            assert checkpoint.same(found, tensor), (module, part)
    assert not left
    nibble.verify(tmp_path / "out", "--against", tmp_path / "source")


@pytest.mark.parametrize("name", PRESETS)
def test_loads(name, nibble: Nibble, tmp_path):
    """What transformers computes with compressed-tensors is what it computes with the weights that Nibble reads back."""
    model(tmp_path / "source", "bfloat16")
    nibble.quantize(tmp_path / "source", tmp_path / "out", "--scheme", name)
    nibble.run("convert", tmp_path / "out", "-o", tmp_path / "plain")
    settings = json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]
    assert settings["ignore"] == ["lm_head"]
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", quantization_config=transformers.CompressedTensorsConfig(run_compressed=False)
    )
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    found, wanted = loaded.state_dict(), plain.state_dict()
    for key, tensor in wanted.items():
        assert checkpoint.same(found[key], tensor), key


def test_shapes_that_are_kept(nibble: Nibble, tmp_path):
    """Rows that are no whole groups stay, and config.json says so."""
    folder = tmp_path / "source"
    model(folder, "bfloat16")
    tensors = checkpoint.tensors(folder)
    config = json.loads((folder / "config.json").read_text())
    config["intermediate_size"] = 624
    (folder / "config.json").write_text(json.dumps(config))
    for key, tensor in tensors.items():
        if "mlp" in key:
            tensors[key] = tensor[:, :624].clone() if "down" in key else tensor[:624].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    options = "--scheme", "w4a16", "--keep", "model.layers.1.self_attn.*"
    report = nibble.run("quantize", folder, "-o", tmp_path / "out", *options)
    assert "kept: 2 embeddings, heads and other matrices, 5 norms and biases" in report.stdout
    assert "4 weights by --keep" in report.stdout
    ignored = json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]["ignore"]
    assert set(ignored) == {
        "lm_head", "model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj",
        *(f"model.layers.1.self_attn.{name}_proj" for name in "qkvo"),
    }
    out = checkpoint.tensors(tmp_path / "out")
    assert all(f"{module}.weight" in out for module in ignored)
    assert "model.layers.0.mlp.gate_proj.weight_packed" in out


def test_config_elsewhere(nibble: Nibble, tmp_path):
    """--config names the directory of config.json."""
    model(tmp_path / "source", "bfloat16")
    nibble.quantize(tmp_path / "source", tmp_path / "wanted", "--scheme", "fp8-channel")
    (tmp_path / "config").mkdir()
    (tmp_path / "source/config.json").rename(tmp_path / "config/config.json")
    weights = tmp_path / "source/model.safetensors"
    nibble.quantize(weights, tmp_path / "out", "--scheme", "fp8-channel", "--config", tmp_path / "config")
    found, wanted = checkpoint.tensors(tmp_path / "out"), checkpoint.tensors(tmp_path / "wanted")
    assert found.keys() == wanted.keys() and all(checkpoint.same(found[name], wanted[name]) for name in wanted)


def test_refused(nibble: Nibble, tmp_path):
    model(tmp_path / "source", "bfloat16")
    nibble.quantize(tmp_path / "source", tmp_path / "out", "--scheme", "fp8-channel")
    again = nibble.run("quantize", tmp_path / "out", "-o", tmp_path / "no", "--scheme", "w4a16", expect=UNSUPPORTED)
    assert "--force-requantize" in again.stderr
    for options in (("w4a16", "--group-size", "48"), ("mxfp4a16", "--group-size", "64"), ("fp8-block", "--pure")):
        command = "quantize", tmp_path / "source", "-o", tmp_path / "no", "--scheme", *options
        nibble.run(*command, expect=USAGE)
    assert not (tmp_path / "no").exists()
