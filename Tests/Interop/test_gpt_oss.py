"""Experts of gpt-oss in MXFP4, held to transformers' own dequantization and model."""

import json
import pathlib

import peft
import pytest
import torch
import transformers
from safetensors.torch import save_file
from transformers.integrations.mxfp4 import FP4_VALUES, convert_moe_packed_tensors
from transformers.quantizers.quantizers_utils import should_convert_module

import checkpoint
from tool import UNSUPPORTED, USAGE, Nibble

BF16 = torch.bfloat16
LAYERS, EXPERTS, HIDDEN, INNER = 2, 3, 64, 96
STACKS = {
    f"model.layers.{layer}.mlp.experts.{name}": shape
    for layer in range(LAYERS)
    for name, shape in (("gate_up_proj", (2 * INNER, HIDDEN)), ("down_proj", (HIDDEN, INNER)))
}
SETTINGS = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": [
        "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"
    ],
}
LEVELS = torch.tensor(FP4_VALUES[:8], dtype=torch.float64)


def model(**changes) -> transformers.GptOssForCausalLM:
    torch.manual_seed(11)
    config = transformers.GptOssConfig(**dict(
        num_hidden_layers=LAYERS, num_local_experts=EXPERTS, num_experts_per_tok=2, hidden_size=HIDDEN,
        intermediate_size=INNER, head_dim=16, num_attention_heads=4, num_key_value_heads=2, vocab_size=120,
        max_position_embeddings=64, eos_token_id=1, pad_token_id=0) | changes)
    made = transformers.GptOssForCausalLM(config)
    with torch.no_grad():
        # The class leaves some parameters as memory had them.
        for parameter in made.parameters():
            parameter.normal_(0, 0.05)
    return made.to(BF16)


def nearest(quotient: torch.Tensor) -> torch.Tensor:
    """Codes of the nearest numbers of E2M1, halfway the even one."""
    middles = (LEVELS[1:] + LEVELS[:-1]) / 2
    code = torch.zeros(quotient.shape, dtype=torch.int64)
    for index, middle in enumerate(middles):
        code += quotient.abs() >= middle if index % 2 else quotient.abs() > middle
    return code | torch.signbit(quotient) * 8


def under(blocks: torch.Tensor, exponents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes, and the squared error of each block."""
    quotient = blocks / torch.exp2(exponents.double())[..., None]
    codes = nearest(quotient)
    errors = (quotient.abs() - LEVELS[codes & 7]).square().sum(-1) * torch.exp2(2 * exponents.double())
    return codes, errors


def packed(codes: torch.Tensor) -> torch.Tensor:
    return (codes[..., ::2] | codes[..., 1::2] << 4).to(torch.uint8)


def in_blocks(weight: torch.Tensor) -> torch.Tensor:
    return weight.transpose(1, 2).double().unflatten(-1, (-1, 32))


def rounded_up(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks and scales as most converters make them: the least power of two by which nothing exceeds 6."""
    blocks = in_blocks(weight)
    exponents = (blocks.abs().amax(-1) / 6).log2().ceil().clamp(-127).to(torch.int64)
    return packed(under(blocks, exponents)[0]), (exponents + 127).to(torch.uint8)


def save(folder: pathlib.Path, made: transformers.GptOssForCausalLM, tensors: dict) -> pathlib.Path:
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors",
              metadata={"format": "pt"})
    config = made.config.to_dict() | {"dtype": "bfloat16", "architectures": ["GptOssForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": SETTINGS}))
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> pathlib.Path:
    """A model as gpt-oss is published, with blocks that tell nothing of their scale."""
    made = model()
    tensors = dict(made.state_dict())
    for name in STACKS:
        blocks, scales = rounded_up(tensors.pop(name))
        blocks[0, 0, 0], scales[0, 0, 0] = 0, 100
        blocks[0, 1, 1] = torch.tensor([0x88, 0x10, 0x09, 0x80] * 4)
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    return save(tmp_path_factory.mktemp("gpt-oss") / "original", made, tensors)


@pytest.fixture(scope="module")
def plain(original) -> pathlib.Path:
    """The same in bfloat16."""
    Nibble().run("convert", original, "-o", original.parent / "plain")
    return original.parent / "plain"


def loaded(folder: pathlib.Path) -> transformers.GptOssForCausalLM:
    options = {}
    if "quantization_config" in checkpoint.config(folder):
        options["quantization_config"] = transformers.Mxfp4Config(dequantize=True)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=BF16, **options).eval()


def logits(made: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return made(torch.arange(2, 26)[None]).logits


def values(tensors: dict, name: str) -> torch.Tensor:
    return convert_moe_packed_tensors(tensors[f"{name}_blocks"], tensors[f"{name}_scales"], dtype=BF16)


def test_lossless(original, plain, nibble: Nibble, tmp_path):
    """MXFP4 to bfloat16 to MXFP4: the same model to transformers, and mostly the same bytes."""
    report = nibble.run("quantize", plain, "-o", tmp_path / "out", "--scheme", "mxfp4")
    assert f"quantized: {2 * LAYERS} tensors to MXFP4" in report.stdout
    before, after = checkpoint.tensors(original), checkpoint.tensors(tmp_path / "out")
    assert before.keys() == after.keys()
    assert checkpoint.config(tmp_path / "out")["quantization_config"] == SETTINGS
    same = 0
    for name, (outputs, inputs) in STACKS.items():
        blocks, scales = after[f"{name}_blocks"], after[f"{name}_scales"]
        assert (blocks.dtype, blocks.shape) == (torch.uint8, (EXPERTS, outputs, inputs // 32, 16))
        assert (scales.dtype, scales.shape) == (torch.uint8, (EXPERTS, outputs, inputs // 32))
        assert checkpoint.same(values(before, name), values(after, name))
        # A scale cannot be told where the largest code is 6 and all could be halved, or where it is below 3.
        codes = torch.stack((before[f"{name}_blocks"] & 7, before[f"{name}_blocks"] >> 4 & 7), -1).flatten(-2)
        largest, odd = codes.amax(-1), ((codes == 1) | (codes == 3)).any(-1)
        told = (largest == 5) | (largest == 6) | (largest == 7) & odd
        assert torch.equal(before[f"{name}_blocks"][told], blocks[told])
        assert torch.equal(before[f"{name}_scales"][told], scales[told])
        same += int(told.sum())
    assert same > 0.98 * sum(EXPERTS * rows * columns // 32 for rows, columns in STACKS.values())
    for name in before.keys() - {f"{name}_{part}" for name in STACKS for part in ("blocks", "scales")}:
        assert checkpoint.same(before[name], after[name]), name
    assert torch.equal(logits(loaded(original)), logits(loaded(tmp_path / "out")))
    assert torch.equal(logits(loaded(plain)), logits(loaded(tmp_path / "out")))
    nibble.verify(tmp_path / "out", "--against", plain)
    nibble.run("convert", tmp_path / "out", "-o", tmp_path / "back")
    for name, tensor in checkpoint.tensors(plain).items():
        assert checkpoint.same(checkpoint.tensors(tmp_path / "back")[name], tensor), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_new_weights(dtype, nibble: Nibble, tmp_path):
    """Of two scales the one that loses less: never more than by the OCP's rule, or by rounding up."""
    made = model().to(dtype)
    with torch.no_grad():
        stack = made.get_parameter("model.layers.0.mlp.experts.down_proj")
        stack[0, :32, 0] = 0
        stack[0, :32, 1] *= 2.0**-12
        stack[1, :, 3] *= 3000
    made.save_pretrained(tmp_path / "source")
    nibble.quantize(tmp_path / "source", tmp_path / "out", "--scheme", "mxfp4", "--max-shard-size", "60KB")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    out, totals = checkpoint.tensors(tmp_path / "out"), torch.zeros(3, dtype=torch.float64)
    for name in STACKS:
        blocks = in_blocks(made.get_parameter(name).detach())
        floor = blocks.abs().amax(-1).clamp(2.0**-125).log2().floor().to(torch.int64) - 2
        candidates = [under(blocks, floor), under(blocks, floor + 1)]
        upper = candidates[1][1] < candidates[0][1]
        assert torch.equal(out[f"{name}_scales"].to(torch.int64), floor + upper + 127)
        codes = torch.where(upper[..., None], candidates[1][0], candidates[0][0])
        assert torch.equal(out[f"{name}_blocks"], packed(codes))
        up = (blocks.abs().amax(-1) / 6).clamp(2.0**-127).log2().ceil().to(torch.int64)
        errors = [torch.where(upper, candidates[1][1], candidates[0][1]), candidates[0][1], under(blocks, up)[1]]
        totals += torch.stack([error.sum() for error in errors])
        if dtype == BF16:
            found = values(out, name).transpose(1, 2).double().unflatten(-1, (-1, 32))
            assert torch.allclose((found - blocks).square().sum(-1), errors[0], rtol=1e-9, atol=0)
    assert totals[0] < totals[1] and totals[0] < totals[2]
    nibble.verify(tmp_path / "out", "--against", tmp_path / "source")


def adapter(folder: pathlib.Path, base: pathlib.Path, **options) -> pathlib.Path:
    torch.manual_seed(3)
    wrapped = peft.get_peft_model(loaded(base), peft.LoraConfig(r=4, lora_alpha=8, **options))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.1)
    wrapped.save_pretrained(folder)
    return folder


def test_merge_attention(original, plain, nibble: Nibble, tmp_path):
    """An adapter of attention leaves every expert as it is, byte for byte, whatever its blocks tell."""
    trained = adapter(tmp_path / "adapter", plain, target_modules=["q_proj", "o_proj"])
    nibble.run("merge", original, trained, "-o", tmp_path / "out", "--scheme", "mxfp4")
    nibble.run("merge", original, trained, "-o", tmp_path / "wide")
    before, after = checkpoint.tensors(original), checkpoint.tensors(tmp_path / "out")
    assert before.keys() == after.keys()
    changed = {name for name, tensor in before.items() if not checkpoint.same(tensor, after[name])}
    assert changed == {
        f"model.layers.{layer}.self_attn.{name}_proj.weight" for layer in range(LAYERS) for name in "qo"}
    assert checkpoint.config(tmp_path / "out")["quantization_config"] == SETTINGS
    nibble.verify(tmp_path / "out")
    assert torch.equal(logits(loaded(tmp_path / "out")), logits(loaded(tmp_path / "wide")))
    merged = peft.PeftModel.from_pretrained(loaded(plain), trained).merge_and_unload().eval()
    assert torch.equal(logits(loaded(tmp_path / "out")), logits(merged))
    # In two steps, through bfloat16: the same values.
    nibble.quantize(tmp_path / "wide", tmp_path / "steps", "--scheme", "mxfp4")
    assert torch.equal(logits(loaded(tmp_path / "steps")), logits(loaded(tmp_path / "out")))


@pytest.mark.parametrize("kind", ["original", "plain"])
def test_merge_experts(kind, original, plain, nibble: Nibble, tmp_path):
    """What an adapter of experts changes is what merging first and quantizing then gives; other stacks stay."""
    base = original if kind == "original" else plain
    trained = adapter(
        tmp_path / "adapter", plain, target_modules=["q_proj"], target_parameters=["mlp.experts.down_proj"])
    nibble.run("merge", base, trained, "-o", tmp_path / "out", "--scheme", "mxfp4")
    nibble.run("merge", base, trained, "-o", tmp_path / "wide")
    nibble.quantize(tmp_path / "wide", tmp_path / "steps", "--scheme", "mxfp4")
    before, out, steps = (
        checkpoint.tensors(folder) for folder in (original, tmp_path / "out", tmp_path / "steps"))
    assert out.keys() == steps.keys()
    for name, tensor in out.items():
        if kind == "original" and "gate_up_proj" in name:
            assert checkpoint.same(tensor, before[name]), name
        else:
            assert checkpoint.same(tensor, steps[name]), name
    assert not checkpoint.same(before["model.layers.0.mlp.experts.down_proj_blocks"],
                               out["model.layers.0.mlp.experts.down_proj_blocks"])
    nibble.verify(tmp_path / "out")


def test_kept_layer(plain, nibble: Nibble, tmp_path):
    """transformers loads a layer's experts in 16 bits where config.json names them; a merge leaves them so."""
    kept = "model.layers.1.mlp.experts"
    nibble.quantize(plain, tmp_path / "out", "--scheme", "mxfp4", "--keep", "*.1.mlp.experts")
    stated = checkpoint.config(tmp_path / "out")["quantization_config"]["modules_to_not_convert"]
    assert stated == [*SETTINGS["modules_to_not_convert"], kept]
    assert not should_convert_module(kept, stated) and should_convert_module(kept.replace("1", "0"), stated)
    out = checkpoint.tensors(tmp_path / "out")
    assert f"{kept}.down_proj" in out and f"{kept}.down_proj_blocks" not in out
    assert torch.equal(logits(loaded(tmp_path / "out")), logits(loaded(plain)))
    nibble.verify(tmp_path / "out", "--against", plain)
    text = nibble.run("quantize", plain, "-o", tmp_path / "dry", "--scheme", "mxfp4", "--keep", kept, "--keep", "*.q",
                      "--dry-run")
    assert "2 weights by --keep" in text.stdout and "--keep '*.q' matches no experts" in text.stderr
    assert not (tmp_path / "dry").exists()
    trained = adapter(tmp_path / "adapter", plain, target_modules=["q_proj"])
    nibble.run("merge", tmp_path / "out", trained, "-o", tmp_path / "merged", "--scheme", "mxfp4")
    merged = checkpoint.tensors(tmp_path / "merged")
    assert merged.keys() == out.keys()
    assert all(checkpoint.same(merged[name], out[name]) for name in out if "q_proj" not in name)
    assert checkpoint.config(tmp_path / "merged")["quantization_config"]["modules_to_not_convert"] == stated


def test_as_a_source(original, plain, nibble: Nibble, tmp_path):
    """What is written is a source like the original: inspected, compared, quantized once more when that is asked for."""
    nibble.quantize(plain, tmp_path / "out", "--scheme", "mxfp4")
    rows = {row["name"]: row for row in nibble.json("inspect", tmp_path / "out")["tensors"]}
    for name, (outputs, inputs) in STACKS.items():
        assert (rows[name]["dtype"], rows[name]["shape"]) == ("MXFP4", [EXPERTS, inputs, outputs])
    assert nibble.json("diff", tmp_path / "out", original)["changed"] == []
    refused = nibble.run(
        "quantize", tmp_path / "out", "-o", tmp_path / "no", "--scheme", "mxfp4", expect=UNSUPPORTED)
    assert "already quantized (MXFP4)" in refused.stderr and "--force-requantize" in refused.stderr
    nibble.quantize(original, tmp_path / "again", "--scheme", "mxfp4", "--force-requantize")
    again, out = checkpoint.tensors(tmp_path / "again"), checkpoint.tensors(tmp_path / "out")
    assert again.keys() == out.keys() and all(checkpoint.same(again[name], out[name]) for name in out)
    nibble.verify(tmp_path / "again", "--against", original)
    nibble.quantize(original, tmp_path / "nf4", "--force-requantize")
    wide = checkpoint.tensors(plain)
    assert all(checkpoint.same(checkpoint.tensors(tmp_path / "nf4")[name], wide[name]) for name in STACKS)


def test_refused(original, plain, nibble: Nibble, tmp_path):
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4, vocab_size=120)).to(BF16)
    llama.save_pretrained(tmp_path / "llama")
    refused = nibble.run("quantize", tmp_path / "llama", "-o", tmp_path / "no", "--scheme", "mxfp4", expect=UNSUPPORTED)
    assert "is of class 'LlamaForCausalLM', and no gpt-oss model" in refused.stderr and "mxfp4a16" in refused.stderr
    model(hidden_size=80, head_dim=20).save_pretrained(tmp_path / "odd")
    refused = nibble.run("quantize", tmp_path / "odd", "-o", tmp_path / "no", "--scheme", "mxfp4", expect=UNSUPPORTED)
    assert "'model.layers.0.mlp.experts.gate_up_proj'" in refused.stderr
    assert "has 80 inputs, which are no whole blocks of 32" in refused.stderr
    for option in (("--group-size", "32"), ("--block-size", "64"), ("--pure",)):
        nibble.run("quantize", plain, "-o", tmp_path / "no", "--scheme", "mxfp4", *option, expect=USAGE)
    broken = checkpoint.tensors(plain)
    broken["model.layers.1.mlp.experts.down_proj"][2, 5, 7] = float("nan")
    (tmp_path / "nan").mkdir()
    save_file(broken, tmp_path / "nan/model.safetensors", metadata={"format": "pt"})
    (tmp_path / "nan/config.json").write_text((plain / "config.json").read_text())
    refused = nibble.run("quantize", tmp_path / "nan", "-o", tmp_path / "no", "--scheme", "mxfp4", expect=65)
    assert f"element {(2 * INNER + 5) * HIDDEN + 7} is nan" in refused.stderr
    # The scheme of llama.cpp with that name is one for files; gpt-oss is none of its families here.
    refused = nibble.run("quantize", plain, "-o", tmp_path / "no.gguf", "--scheme", "mxfp4", expect=UNSUPPORTED)
    assert "GptOssForCausalLM" in refused.stderr
    trained = adapter(tmp_path / "adapter", plain, target_modules=["q_proj"])
    merge = "merge", original, trained, "-o", tmp_path / "no", "--scheme", "mxfp4"
    nibble.run(*merge, "--dtype", "float16", expect=USAGE)
    assert not (tmp_path / "no").exists() and not (tmp_path / "no.gguf").exists()
