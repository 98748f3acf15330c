"""Tiny models that exist only quantized: tensors by the layout of each method, and the values that they stand for."""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable

import bitsandbytes
import numpy as np
import torch
import transformers
from safetensors.torch import save_file

import checkpoint
from architectures import BF16, F16, F32, text

Tensors = dict[str, torch.Tensor]
Packed = tuple[Tensors, torch.Tensor]
FP8 = torch.float8_e4m3fn
E2M1 = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6])


@dataclasses.dataclass(frozen=True)
class Method:
    """A method with one choice of its options: `pack` makes the tensors of a linear layer of random codes."""

    name: str
    settings: dict
    pack: Callable[[str, int, int, torch.Generator], Packed]
    # What a list of tensors calls the type of such a weight, and who `quantize` says quantized it.
    type_name: str
    method: str
    dtype: torch.dtype = BF16
    # What the header of a file says of the tensors.
    header: Callable[[Tensors], dict[str, str]] = lambda tensors: {}


def spread(scales: torch.Tensor, rows: int, columns: int, out: int, inputs: int) -> torch.Tensor:
    """Each scale for the elements of its block; the last blocks may be smaller."""
    return scales.repeat_interleave(min(rows, out), 0)[:out].repeat_interleave(min(columns, inputs), 1)[:, :inputs]


def codes(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Any bytes."""
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def fp8_codes(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Any but NaN."""
    found = codes(shape, generator)
    return torch.where(found & 0x7F == 0x7F, found - 1, found).view(FP8)


def powers(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Bytes b, each for 2^(b - 127), that are no more than 1."""
    return torch.randint(110, 128, shape, generator=generator, dtype=torch.uint8)


def power(byte: torch.Tensor) -> torch.Tensor:
    return torch.exp2(byte.to(torch.float64) - 127).to(F32)


def numbers(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype = F32) -> torch.Tensor:
    return (torch.rand(shape, generator=generator) * 0.01 + 1e-4).to(dtype)


def fp8_block(storage: str, rows: int = 128, columns: int = 128, dtype: torch.dtype = BF16,
              suffix: str = "weight_scale_inv"):
    """DeepSeek's, whose fourth version has scales of another name: value times scale in 32 bits, rounded once."""
    def pack(name: str, out: int, inputs: int, generator: torch.Generator) -> Packed:
        values = fp8_codes((out, inputs), generator)
        shape = (-(-out // rows), -(-inputs // columns))
        match storage:
            case "u8" | "e8m0":
                scales = powers(shape, generator)
                wide = power(scales)
                if storage == "e8m0":
                    scales = scales.view(torch.float8_e8m0fnu)
            case _:
                scales = numbers(shape, generator, getattr(torch, storage))
                wide = scales.to(F32)
        tensors = {f"{name}.weight": values, f"{name}.{suffix}": scales}
        return tensors, (values.to(F32) * spread(wide, rows, columns, out, inputs)).to(dtype)
    return pack


def fp8_scales(shape: Callable[[int], list[int]], dtype: torch.dtype = F32, more: dict | None = None):
    """A scale for each row, or for all."""
    def pack(name: str, out: int, inputs: int, generator: torch.Generator) -> Packed:
        values = fp8_codes((out, inputs), generator)
        scales = numbers(tuple(shape(out)), generator, dtype)
        wide = scales.to(F32).reshape(-1, 1) if scales.numel() == out else scales.to(F32).reshape(1, 1)
        tensors = {f"{name}.weight": values, f"{name}.weight_scale": scales}
        tensors |= {f"{name}.{key}": value.clone() for key, value in (more or {}).items()}
        return tensors, (values.to(F32) * wide).to(BF16)
    return pack


def words(fields: torch.Tensor, bits: int) -> torch.Tensor:
    """Rows of fields as streams of bits in words of 32, the lowest bit of the first word first."""
    field = fields.numpy().astype(np.uint8)[..., None]
    stream = np.unpackbits(field, axis=-1, bitorder="little")[..., :bits].reshape(*fields.shape[:-1], -1)
    padding = -stream.shape[-1] % 32
    stream = np.pad(stream, [(0, 0)] * (stream.ndim - 1) + [(0, padding)])
    return torch.from_numpy(np.packbits(stream, axis=-1, bitorder="little").view(np.int32))


def padded_words(fields: torch.Tensor, bits: int) -> torch.Tensor:
    """As many fields in a word of 32 bits as fit whole."""
    count = 32 // bits
    fields = torch.nn.functional.pad(fields, (0, -fields.shape[-1] % count)).to(torch.int64)
    shifted = fields.reshape(*fields.shape[:-1], -1, count) << torch.arange(count) * bits
    return torch.from_numpy(shifted.sum(-1).numpy().astype(np.uint32).view(np.int32))


def nibbles(fields: torch.Tensor) -> torch.Tensor:
    """Two codes of 4 bits in a byte, the even one low."""
    return fields[..., 0::2] | fields[..., 1::2] << 4


def fields(shape: tuple[int, ...], bits: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 2**bits, shape, generator=generator, dtype=torch.uint8)


def packed_integers(bits: int, group: int | None, symmetric: bool = True, ordered: bool = False,
                    dtype: torch.dtype = BF16, padded: bool = False):
    """compressed-tensors: code times scale, both in 16 bits, rounded once."""
    def pack(name: str, out: int, inputs: int, generator: torch.Generator) -> Packed:
        size = group or inputs
        found = fields((out, inputs), bits, generator)
        scales = numbers((out, -(-inputs // size)), generator, dtype)
        places = torch.arange(inputs) // size
        tensors = {
            f"{name}.weight_packed": padded_words(found, bits) if padded else words(found, bits),
            f"{name}.weight_scale": scales,
            f"{name}.weight_shape": torch.tensor([out, inputs]),
        }
        if ordered:
            places = places[torch.randperm(inputs, generator=generator)]
            tensors[f"{name}.weight_g_idx"] = places.to(torch.int32)
        zeros = torch.full(scales.shape, 2 ** (bits - 1), dtype=torch.uint8)
        if not symmetric:
            zeros = fields(tuple(scales.shape), bits, generator)
            tensors[f"{name}.weight_zero_point"] = words(zeros.T, bits).T
        whole = found.to(F32) - zeros.to(F32)[:, places]
        return tensors, (whole * scales.to(F32)[:, places]).to(dtype)
    return pack


def plain_bytes(kind: str, blocks: tuple[int, int] | None, scale: torch.dtype = BF16):
    """FP8 or int8 of compressed-tensors: the scale is rounded to the type of the model first."""
    def pack(name: str, out: int, inputs: int, generator: torch.Generator) -> Packed:
        shape = (out, inputs)
        values = fp8_codes(shape, generator) if kind == "fp8" else codes(shape, generator).view(torch.int8)
        if kind == "int4":
            values = values >> 4
        rows, columns = blocks or (out, inputs)
        shape = (-(-out // rows), -(-inputs // columns)) if blocks else (1,)
        scales = powers(shape, generator) if scale == torch.uint8 else numbers(shape, generator, scale)
        wide = (power(scales) if scale == torch.uint8 else scales.to(BF16).to(F32)).reshape(shape if blocks else (1, 1))
        tensors = {f"{name}.weight": values, f"{name}.weight_scale": scales}
        return tensors, (values.to(F32) * spread(wide, rows, columns, out, inputs)).to(BF16)
    return pack


def nvfp4(factor: str, divides: bool, packed: str, scale: str = "weight_scale"):
    """Scales of E4M3 under one in 32 bits, which is divided by or multiplied with."""
    def pack(name: str, out: int, inputs: int, generator: torch.Generator) -> Packed:
        found = fields((out, inputs), 4, generator)
        scales = (torch.rand(out, inputs // 16, generator=generator) * 448).to(FP8)
        one = torch.rand(1, generator=generator) * 4e3 + 1e3
        if not divides:
            one = (1 / one).reshape(())
        wide = scales.to(F32) / one if divides else scales.to(F32) * one
        tensors = {
            f"{name}.{packed}": nibbles(found), f"{name}.{scale}": scales, f"{name}.{factor}": one,
            f"{name}.input_{'global_' if divides else ''}scale": torch.ones(one.shape),
        }
        return tensors, (E2M1[found.long()] * wide.repeat_interleave(16, 1)).to(BF16)
    return pack


def mxfp4(packed: str, scale: str, storage: torch.dtype = torch.uint8):
    def pack(name: str, out: int, inputs: int, generator: torch.Generator) -> Packed:
        found, scales = fields((out, inputs), 4, generator), powers((out, inputs // 32), generator)
        tensors = {f"{name}.{packed}": nibbles(found).view(torch.int8 if storage != torch.uint8 else torch.uint8),
                   f"{name}.{scale}": scales.view(storage)}
        return tensors, (E2M1[found.long()] * power(scales).repeat_interleave(32, 1)).to(BF16)
    return pack


def gptq(bits: int, group: int, version: int = 1, ordered: bool | None = False, scale: torch.dtype = F16,
         dtype: torch.dtype = F16):
    """Codes less zero points, times scales, in 32 bits. Codes are packed along the inputs, zero points along the
    outputs; the first version stores these less one, modulo 2^bits. `ordered` is None where `g_idx` is not stored."""
    def pack(name: str, out: int, inputs: int, generator: torch.Generator) -> Packed:
        size = inputs if group == -1 else group
        found = fields((out, inputs), bits, generator)
        scales = numbers((-(-inputs // size), out), generator, scale)
        zeros = fields(tuple(scales.shape), bits, generator)
        places = torch.arange(inputs) // size
        if ordered:
            places = places[torch.randperm(inputs, generator=generator)]
        stored = (zeros.to(torch.int32) - (2 - version)) % 2**bits
        tensors = {
            f"{name}.qweight": words(found, bits).T, f"{name}.qzeros": words(stored, bits), f"{name}.scales": scales,
        }
        if ordered is not None:
            tensors[f"{name}.g_idx"] = places.to(torch.int32)
        whole = found.to(F32) - zeros.to(F32)[places].T
        return tensors, (whole * scales.to(F32)[places].T).to(dtype)
    return pack


def awq(group: int):
    """Eight outputs in a word: the even ones first."""
    def interleaved(columns: torch.Tensor) -> torch.Tensor:
        order = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
        return words(columns.reshape(columns.shape[0], -1, 8)[:, :, order].reshape(columns.shape), 4)

    def pack(name: str, out: int, inputs: int, generator: torch.Generator) -> Packed:
        found = fields((inputs, out), 4, generator)
        scales = numbers((inputs // group, out), generator, F16)
        zeros = fields(tuple(scales.shape), 4, generator)
        tensors = {
            f"{name}.qweight": interleaved(found), f"{name}.qzeros": interleaved(zeros), f"{name}.scales": scales,
        }
        whole = found.to(F32) - zeros.to(F32).repeat_interleave(group, 0)
        return tensors, (whole * scales.to(F32).repeat_interleave(group, 0)).to(F16).T
    return pack


def int8(name: str, out: int, inputs: int, generator: torch.Generator) -> Packed:
    """LLM.int8(), by bitsandbytes itself."""
    values, largest = codes((out, inputs), generator).view(torch.int8), numbers((out,), generator)
    tensors = {f"{name}.weight": values, f"{name}.SCB": largest, f"{name}.weight_format": torch.tensor(0).to(torch.uint8)}
    return tensors, bitsandbytes.functional.int8_vectorwise_dequant(values, largest).to(BF16)


def gptq_method(name: str, bits: int, group: int, pack, **more) -> Method:
    settings = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": False, "sym": True} | more
    return Method(name, settings, pack, f"GPTQ-Q{bits}", "GPTQ", F16)


def compressed(name: str, format_name: str, pack, type_name: str, weights: dict, activations: dict | None = None,
               dtype: torch.dtype = BF16) -> Method:
    weights = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel", "dynamic": False} | weights
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations, "output_activations": None}
    settings = {
        "quant_method": "compressed-tensors", "format": format_name, "quantization_status": "compressed",
        "ignore": ["lm_head"], "config_groups": {"group_0": group}, "kv_cache_scheme": None,
    }
    return Method(name, settings, pack, type_name, "compressed-tensors", dtype)


def integers(bits: int, group: int | None, **more) -> dict:
    return {"num_bits": bits, "type": "int", "strategy": "group" if group else "channel", "group_size": group} | more


BLOCKS = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
STATIC = {"input_scale": torch.tensor(0.5), "k_scale": torch.tensor(1.0)}

METHODS = [
    Method("fp8-block", BLOCKS, fp8_block("float32"), "FP8-E4M3", "FP8"),
    Method("fp8-block-bf16", BLOCKS, fp8_block("bfloat16"), "FP8-E4M3", "FP8"),
    Method("fp8-block-u8", BLOCKS | {"scale_fmt": "ue8m0"}, fp8_block("u8"), "FP8-E4M3", "FP8"),
    Method("fp8-block-e8m0", BLOCKS | {"scale_fmt": "ue8m0"}, fp8_block("e8m0"), "FP8-E4M3", "FP8"),
    Method("fp8-block-f16", BLOCKS, fp8_block("float32", dtype=F16), "FP8-E4M3", "FP8", F16),
    Method("fp8-block-f32", BLOCKS, fp8_block("float32", dtype=F32), "FP8-E4M3", "FP8", F32),
    Method("fp8-block-other", BLOCKS | {"weight_block_size": [48, 80]}, fp8_block("float32", 48, 80), "FP8-E4M3",
           "FP8"),
    Method("fp8-channel", BLOCKS | {"weight_block_size": None}, fp8_scales(lambda out: [out, 1]), "FP8-E4M3", "FP8"),
    Method("fp8-tensor", {"quant_method": "fp8", "activation_scheme": "static"},
           fp8_scales(lambda out: [], more=STATIC), "FP8-E4M3", "FP8"),
    Method("fbgemm", {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0},
           fp8_scales(lambda out: [out, 1], more={"input_scale_ub": torch.tensor([1200.0])}), "FP8-E4M3", "FP8"),
    Method("fp8-dense", BLOCKS | {"expert_dtype": "fp4", "scale_fmt": "ue8m0"}, fp8_block("e8m0", suffix="scale"),
           "FP8-E4M3", "FP8"),
    Method("fp8-fp4", BLOCKS | {"expert_dtype": "fp4", "scale_fmt": "ue8m0"},
           mxfp4("weight", "scale", torch.float8_e8m0fnu), "MXFP4", "FP8"),
    *(compressed(f"w{bits}a16", "pack-quantized", packed_integers(bits, 32), f"W{bits}A16", integers(bits, 32))
      for bits in range(1, 9)),
    *(compressed(f"w{bits}a16-padded", "pack-quantized", packed_integers(bits, 64, padded=True), f"W{bits}A16",
                 integers(bits, 64)) for bits in (3, 6)),
    compressed("w4a16-channel", "pack-quantized", packed_integers(4, None), "W4A16", integers(4, None)),
    compressed("w4a16-f16", "pack-quantized", packed_integers(4, 64, dtype=F16), "W4A16", integers(4, 64), dtype=F16),
    *(compressed(f"w{bits}a16-asymmetric", "pack-quantized", packed_integers(bits, 64, symmetric=False), f"W{bits}A16",
                 integers(bits, 64, symmetric=False)) for bits in (3, 4, 8)),
    compressed("w4a16-ordered", "pack-quantized", packed_integers(4, 32, ordered=True), "W4A16",
               integers(4, 32, actorder="group")),
    compressed("w4a16-ordered-asymmetric", "pack-quantized", packed_integers(4, 32, symmetric=False, ordered=True),
               "W4A16", integers(4, 32, actorder="group", symmetric=False)),
    compressed("float-channel", "float-quantized", plain_bytes("fp8", (1, 2**30)), "FP8-E4M3", {}),
    compressed("float-channel-f32", "float-quantized", plain_bytes("fp8", (1, 2**30), F32), "FP8-E4M3", {}),
    compressed("float-tensor", "naive-quantized", plain_bytes("fp8", None), "FP8-E4M3", {"strategy": "tensor"}),
    compressed("float-block", "float-quantized", plain_bytes("fp8", (128, 128), F32), "FP8-E4M3",
               {"strategy": "block", "block_structure": [128, 128]}),
    compressed("w8a8", "int-quantized", plain_bytes("int8", (1, 2**30)), "W8A8", {"type": "int"}, {"num_bits": 8}),
    compressed("w4a8", "int-quantized", plain_bytes("int4", (1, 64)), "W4A8", integers(4, 64), {"num_bits": 8}),
    compressed("ct-mxfp8", "mxfp8-quantized", plain_bytes("fp8", (1, 32), torch.uint8), "MXFP8",
               {"strategy": "group", "group_size": 32}),
    compressed("nvfp4", "nvfp4-pack-quantized", nvfp4("weight_global_scale", True, "weight_packed"), "NVFP4",
               {"num_bits": 4, "strategy": "tensor_group", "group_size": 16}),
    compressed("ct-mxfp4", "mxfp4-pack-quantized", mxfp4("weight_packed", "weight_scale"), "MXFP4",
               {"num_bits": 4, "strategy": "group", "group_size": 32}),
    *(gptq_method(f"gptq-{bits}", bits, 64, gptq(bits, 64)) for bits in (2, 3, 4, 8)),
    gptq_method("gptq-v2", 4, 64, gptq(4, 64, version=2), checkpoint_format="gptq_v2"),
    gptq_method("gptq-ordered", 4, 64, gptq(4, 64, ordered=True), desc_act=True, checkpoint_format="gptq"),
    gptq_method("gptq-one-group", 4, -1, gptq(4, -1)),
    gptq_method("gptq-without-order", 4, 32, gptq(4, 32, ordered=None)),
    gptq_method("gptq-dynamic", 4, 32, gptq(4, 64), dynamic={"-:.*lm_head": {}, "model.*proj": {"group_size": 64}}),
    Method("awq", {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm",
                   "modules_to_not_convert": None}, awq(64), "AWQ-Q4", "AWQ", F16),
    Method("modelopt-nvfp4", {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16},
           nvfp4("weight_scale_2", False, "weight"), "NVFP4", "ModelOpt"),
    Method("modelopt-fp8", {"quant_method": "modelopt", "quant_algo": "FP8"},
           fp8_scales(lambda out: [], more=STATIC), "FP8-E4M3", "ModelOpt"),
    Method("int8", {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}, int8, "INT8",
           "bitsandbytes LLM.int8()"),
    Method("mxfp8", {"quant_method": "mxfp8", "weight_block_size": [1, 32]}, fp8_block("u8", 1, 32), "MXFP8", "MXFP8"),
]


def llama(dtype: torch.dtype) -> transformers.LlamaForCausalLM:
    """192 and 320 are no multiples of 128."""
    torch.manual_seed(5)
    config = transformers.LlamaConfig(**text(192, layers=1, intermediate_size=320))
    return transformers.LlamaForCausalLM(config).to(dtype)


def save(folder: pathlib.Path, tensors: Tensors, config: dict, shards: int = 1, header: dict | None = None):
    """Parts of one weight may lie in several files."""
    folder.mkdir(parents=True)
    header = {"format": "pt"} | (header or {})
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", header)
    else:
        names = [f"model-{number + 1:05}-of-{shards:05}.safetensors" for number in range(shards)]
        places = {name: names[index % shards] for index, name in enumerate(sorted(tensors))}
        for file in names:
            part = {name: tensor for name, tensor in tensors.items() if places[name] == file}
            save_file(part, folder / file, header)
        index = {"metadata": {}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def linear(name: str) -> str | None:
    """The module of a weight that is to be packed."""
    return name.removesuffix(".weight") if name.endswith("_proj.weight") else None


def create(folder: pathlib.Path, method: Method, shards: int = 1) -> tuple[pathlib.Path, Tensors]:
    """The model, and the tensors that it stands for."""
    generator = torch.Generator().manual_seed(len(method.name))
    model = llama(method.dtype)
    tensors, expected = {}, {}
    for name, tensor in model.state_dict().items():
        if module := linear(name):
            found, expected[name] = method.pack(module, *tensor.shape, generator)
            tensors |= found
        else:
            tensors[name] = expected[name] = tensor
    config = model.config.to_dict() | {"dtype": str(method.dtype).removeprefix("torch.")}
    config["architectures"] = ["LlamaForCausalLM"]
    config["quantization_config"] = method.settings
    return save(folder, tensors, config, shards, method.header(tensors)), expected


def packed(plain: pathlib.Path, folder: pathlib.Path, method: Method) -> pathlib.Path:
    """A directory whose linear layers hold random codes instead of what they were."""
    generator = torch.Generator().manual_seed(2)
    shutil.copytree(plain, folder)
    tensors = {}
    for name, tensor in checkpoint.tensors(folder).items():
        tensors |= method.pack(module, *tensor.shape, generator)[0] if (module := linear(name)) else {name: tensor}
    for file in folder.glob("model*.safetensors*"):
        file.unlink()
    header = {"format": "pt"} | method.header(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", header)
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": method.settings}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
