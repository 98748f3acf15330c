"""Models that exist only quantized, in ways that are not read or with parts that do not fit: refused by name."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

import checkpoint
import quantized_modules
import quantized_sources
from architectures import BF16
from checkpoint import header, same
from quantized_modules import EVERY as METHODS
from tool import DIFFERENT, REJECTED, UNSUPPORTED, Nibble

Q = "model.layers.0.self_attn.q_proj"
HOSTILE = {
    "no-scale": ("fp8-block", REJECTED, "are missing", lambda found: found.pop(f"{Q}.weight_scale_inv"), {}),
    "no-weight": ("fp8-block", REJECTED, "is part of a weight in FP8", lambda found: found.pop(f"{Q}.weight"), {}),
    "other-blocks": ("fp8-block", REJECTED, "for blocks of 64 × 64", None, {"weight_block_size": [64, 64]}),
    "no-global": ("nvfp4", REJECTED, "'.weight_global_scale' is missing",
                  lambda found: found.pop(f"{Q}.weight_global_scale"), {}),
    "no-shape": ("w4a16", REJECTED, "'.weight_shape' is missing", lambda found: found.pop(f"{Q}.weight_shape"), {}),
    "other-shape": ("w4a16", REJECTED, "which are not 193 codes", lambda found: found.update(
        {f"{Q}.weight_shape": torch.tensor([192, 193])}), {}),
    "negative-shape": ("w4a16", REJECTED, "'.weight_shape' says", lambda found: found.update(
        {f"{Q}.weight_shape": torch.tensor([192, -192])}), {}),
    "endless-shape": ("w4a16", REJECTED, "codes of 4 bits", lambda found: found.update(
        {f"{Q}.weight_shape": torch.tensor([192, 2**63 - 1])}), {}),
    "no-groups": ("w4a16", REJECTED, "has no 'config_groups'", None, {"config_groups": {}}),
    "no-target": ("w4a16", REJECTED, "among its targets", None, {
        "config_groups": {"a": {"targets": ["re:.*gate$"], "weights": quantized_sources.integers(4, 32)}}}),
    "pattern": ("w4a16", UNSUPPORTED, "is not understood here", None, {
        "config_groups": {"a": {"targets": ["re:(?=x)"], "weights": quantized_sources.integers(4, 32)}}}),
    "sparse": ("w4a16", UNSUPPORTED, "sparse weights", None, {"sparsity_config": {"format": "sparse-bitmask"}}),
    "rotated": ("w4a16", UNSUPPORTED, "rotated weights", None, {"transform_config": {"config_groups": {"a": {}}}}),
    "marlin": ("gptq-4", UNSUPPORTED, "checkpoint_format 'marlin'", None, {"checkpoint_format": "marlin"}),
    "no-order": ("gptq-ordered", REJECTED, "'.g_idx' is missing", lambda found: found.pop(f"{Q}.g_idx"), {}),
    "five-bits": ("gptq-4", UNSUPPORTED, "5 bits", None, {"bits": 5}),
    "other-bits": ("gptq-4", REJECTED, "needed is F16", None, {"bits": 8}),
    "gemv": ("awq", UNSUPPORTED, "version 'gemv'", None, {"version": "gemv"}),
    "no-zeros": ("awq", REJECTED, "'.qzeros' is missing", lambda found: found.pop(f"{Q}.qzeros"), {}),
    "no-algorithm": ("modelopt-nvfp4", UNSUPPORTED, "quant_algo 'W4A8_AWQ'", None, {"quant_algo": "W4A8_AWQ"}),
    "smoothed": ("modelopt-nvfp4", UNSUPPORTED, "'.pre_quant_scale' beside it", lambda found: found.update(
        {f"{Q}.pre_quant_scale": torch.ones(192)}), {}),
    "int8-layout": ("int8", UNSUPPORTED, "'.weight_format' is 2", lambda found: found.update(
        {f"{Q}.weight_format": torch.tensor(2).to(torch.uint8)}), {}),
    "exl3": ("awq", UNSUPPORTED, "(exl3: codes along a trellis", None, {"quant_method": "exl3"}),
    "hqq-no-zero": ("hqq-4", REJECTED, "'.zero' is missing", lambda found: found.pop(f"{Q}.zero"), {}),
    "hqq-no-codes": ("hqq-4", REJECTED, "is part of a weight in HQQ", lambda found: found.pop(f"{Q}.W_q"), {}),
    "hqq-few-codes": ("hqq-3", REJECTED, "which are not 576 × 64 codes", lambda found: found.update(
        {f"{Q}.W_q": found[f"{Q}.W_q"][1:]}), {}),
    "hqq-scales": ("hqq-4", REJECTED, "needed are 576", lambda found: found.update(
        {f"{Q}.scale": found[f"{Q}.scale"][1:]}), {}),
    "hqq-shape": ("hqq-4", REJECTED, "needed are 573", lambda found: found.update(
        {f"{Q}.shape": torch.tensor([192, 191])}), {}),
    "hqq-groups": ("hqq-4", REJECTED, "not made of groups of 100", lambda found: found.update(
        {f"{Q}.group_size": torch.tensor(100)}), {}),
    "hqq-negative": ("hqq-4", REJECTED, "-192", lambda found: found.update({f"{Q}.shape": torch.tensor([-192, 192])}), {}),
    "hqq-endless": ("hqq-4", REJECTED, "q_proj", lambda found: found.update(
        {f"{Q}.shape": torch.tensor([2**62, 2**62])}), {}),
    "hqq-axis": ("hqq-4", REJECTED, "'.axis' is 2", lambda found: found.update({f"{Q}.axis": torch.tensor(2)}), {}),
    "hqq-group": ("hqq-4", REJECTED, "'.group_size' is 0", lambda found: found.update(
        {f"{Q}.group_size": torch.tensor(0)}), {}),
    "hqq-packing": ("hqq-4", UNSUPPORTED, "'.packing' is '5bit_u8'", lambda found: found.update(
        {f"{Q}.packing": quantized_modules.word("5bit_u8")}), {}),
    "hqq-twice": ("hqq-4", UNSUPPORTED, "quantized twice", lambda found: found.update(
        {f"{Q}.quant_zero": quantized_modules.flag(1)}), {}),
    "hqq-offloaded": ("hqq-4", UNSUPPORTED, "'.zero_scale' beside it", lambda found: found.update(
        {f"{Q}.zero_scale": torch.ones(2, 576)}), {}),
    "torchao-no-scale": ("torchao-int8", REJECTED, "_weight_scale' is missing", lambda found: found.pop(
        f"{Q}._weight_scale"), {}),
    "torchao-no-codes": ("torchao-int8", REJECTED, "is part of a weight in torchao", lambda found: found.pop(
        f"{Q}._weight_qdata"), {}),
    "torchao-scales": ("torchao-int8", REJECTED, "which do not divide it", lambda found: found.update(
        {f"{Q}._weight_scale": torch.ones(5, 1)}), {}),
    "torchao-zeros": ("torchao-int4", UNSUPPORTED, "zero points in F32", lambda found: found.update(
        {f"{Q}._weight_zero_point": torch.ones(192, 6)}), {}),
    "torchao-groups": ("torchao-int4-packed", REJECTED, "in groups of 64", lambda found: found.update(
        {f"{Q}._weight_scale": found[f"{Q}._weight_scale"].T}), {}),
    "torchao-smoothed": ("torchao-int4", UNSUPPORTED, "an 'act_pre_scale'", lambda found: found.update(
        {f"{Q}._weight_act_pre_scale": torch.ones(192)}), {}),
    "auto-round-mlx": ("auto-round-gptq", UNSUPPORTED, "'auto_round:mlx'", None, {"packing_format": "auto_round:mlx"}),
    "auto-round-mxint": ("auto-round-plain", UNSUPPORTED, "of data_type 'mx_int'", None, {"data_type": "mx_int"}),
    "auto-round-e5m3": ("auto-round-nvfp4", UNSUPPORTED, "_e5m3'", None, {
        "packing_format": "auto_round:llm_compressor_nvfp4_e5m3"}),
    "auto-round-rotated": ("auto-round-mxfp4", UNSUPPORTED, "rotated weights", None, {
        "rotation_config": {"block_size": 32, "hadamard_type": "hadamard"}}),
    "auto-round-other": ("auto-round-mxfp4", UNSUPPORTED, "data_type 'int'", None, {
        "extra_config": {Q: {"data_type": "int"}}}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_refused(name, nibble: Nibble, tmp_path):
    """It can be looked at and copied, whatever it is."""
    method, code, message, edit, settings = HOSTILE[name]
    method = next(row for row in METHODS if row.name == method)
    source, _ = quantized_sources.create(tmp_path / "source", method)
    if edit:
        tensors, stated = load_file(source / "model.safetensors"), header(source / "model.safetensors")
        edit(tensors)
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, source / "model.safetensors", stated)
    config = checkpoint.config(source)
    config["quantization_config"] |= settings
    (source / "config.json").write_text(json.dumps(config))
    for verb in (["convert", "--dtype", "float32"], ["quantize", "--force-requantize"]):
        result = nibble.run(*verb, source, "-o", tmp_path / "out", expect=code)
        assert message in result.stderr, result.stderr
        assert result.stderr.startswith("nibble: error: ") and not (tmp_path / "out").exists()
    nibble.run("inspect", source)
    nibble.run("inspect", source, "--raw")
    nibble.run("verify", source, expect=DIFFERENT if code == REJECTED else 0)
    nibble.run("split", source, "-o", tmp_path / "parts")


KINDS = {
    "tiles": ("torchao-int8", "Int4TilePackedTo4dTensor", {}, "tiles for the tensor cores"),
    "device": ("torchao-int8", "Int4PlainInt32Tensor", {}, "an accelerator has packed for itself"),
    "unknown": ("torchao-int8", "Int5Tensor", {}, "is a Int5Tensor of torchao"),
    "swizzled": ("torchao-mx8", "MXTensor", {"is_swizzled_scales": True}, "is_swizzled_scales"),
    "six-bits": ("torchao-mx4", "MXTensor", {
        "elem_dtype": quantized_modules.torch_type("fp6_e2m3"), "block_size": 32}, "MXTensor of 'fp6_e2m3'"),
}


@pytest.mark.parametrize("name", KINDS)
def test_classes_of_torchao(name, nibble: Nibble, tmp_path):
    """What is not read can be copied, with what its header says."""
    method, kind, attributes, message = KINDS[name]
    method = next(row for row in METHODS if row.name == method)
    method = dataclasses.replace(method, header=quantized_modules.torchao_header(kind, attributes))
    source, _ = quantized_sources.create(tmp_path / "source", method)
    for verb in (["convert", "--dtype", "float32"], ["quantize", "--force-requantize"]):
        assert message in nibble.run(*verb, source, "-o", tmp_path / "out", expect=UNSUPPORTED).stderr
    nibble.run("inspect", source)
    nibble.run("split", source, "-o", tmp_path / "parts", "--max-shard-size", "100kB")
    for file in (tmp_path / "parts").glob("*.safetensors"):
        assert header(file) == header(source / "model.safetensors")


READ = {
    "awq", "gptq", "fp8", "fbgemm_fp8", "mxfp4", "mxfp8", "compressed-tensors", "bitsandbytes_4bit", "bitsandbytes_8bit",
    "hqq", "torchao", "auto-round",
}
# What their first models have in config.json.
OLD = {"quip": "quip_params", "aqlm": "aqlm"}
UNREAD = sorted(AUTO_QUANTIZATION_CONFIG_MAPPING.keys() - READ | {"exl2", "exl3", "quip"})


@pytest.mark.parametrize("name", UNREAD)
def test_methods_that_are_not_read(name, nibble: Nibble, tmp_path):
    """All that transformers knows, and some more: refused with a word on what it is, by every verb that computes. As it
    is a checkpoint can be copied, and stays what it was."""
    model = quantized_sources.llama(BF16)
    tensors = {}
    for key, tensor in model.state_dict().items():
        if module := quantized_sources.linear(key):
            tensors |= {f"{module}.codes": torch.ones(tensor.shape, dtype=torch.int16), f"{module}.table": torch.ones(3)}
        else:
            tensors[key] = tensor
    settings = {"quantization_config": {"quant_method": name, "bits": 4}}
    stated = {"whole": settings, "part": {"text_config": settings}}
    if name in OLD:
        stated["old"] = {OLD[name]: {"bits": 2}}
    for part, more in stated.items():
        config = model.config.to_dict() | {"dtype": "bfloat16", "architectures": ["LlamaForCausalLM"]} | more
        config = json.loads(json.dumps(config))
        source = quantized_sources.save(tmp_path / part / "source", tensors, config, header={"said": "so"})
        for verb in (["convert", "--dtype", "float32"], ["quantize", "--force-requantize"], ["quantize", "--scheme", "q4_0"]):
            out = tmp_path / ("out.gguf" if "q4_0" in verb else "out")
            refused = nibble.run(*verb, source, "-o", out, expect=UNSUPPORTED).stderr
            assert f"quantized ({name}".lower().split("_")[0] in refused.lower() and ": " in refused.split("(")[1], refused
            assert not out.exists()
        nibble.run("convert", source, "-o", tmp_path / f"copy-{part}")
        found = checkpoint.tensors(tmp_path / f"copy-{part}")
        assert found.keys() == tensors.keys() and all(same(found[key], tensors[key]) for key in found)
        assert checkpoint.config(tmp_path / f"copy-{part}") == config
        assert header(tmp_path / f"copy-{part}" / "model.safetensors") == {"format": "pt", "said": "so"}
        for verb in ("inspect", "verify"):
            nibble.run(verb, source)


def test_modules_of_hqq_in_a_pickle(nibble: Nibble, tmp_path):
    """What it saves as `qmodel.pt`: dictionaries in a dictionary."""
    method = next(method for method in METHODS if method.name == "hqq-4")
    source, _ = quantized_sources.create(tmp_path / "source", method)
    modules: dict = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        module, member = name.rsplit(".", 1)
        modules.setdefault(module, {})[member] = tensor
    (source / "model.safetensors").unlink()
    torch.save(modules, source / "qmodel.pt")
    for verb in ("convert", "quantize"):
        refused = nibble.run(verb, source, "-o", tmp_path / "out", expect=UNSUPPORTED)
        assert "what HQQ saves" in refused.stderr and not (tmp_path / "out").exists()
