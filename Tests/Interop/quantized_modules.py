"""Methods that say more of a module than numbers: HQQ, torchao, AutoRound. Their files by their own arithmetic.

HQQ 0.2.8 and torchao 0.18 themselves gave the same bytes when this was written; they are no requirement."""

import json

import torch

import quantized_sources
from architectures import BF16, F16, F32
from quantized_sources import (
    STATIC, Method, Packed, Tensors, awq, codes, fields, fp8_block, fp8_codes, fp8_scales, gptq, mxfp4, nibbles, numbers,
    nvfp4, power, powers, spread)


# --- HQQ ------------------------------------------------------------------------------------------

def word(text: str) -> torch.Tensor:
    return torch.tensor([ord(letter) for letter in text], dtype=torch.uint8)


def flag(value: int) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.uint8)


PACKINGS = {8: "8bit_u8", 4: "4bit_u8", 3: "3bit_32", 2: "2bit_u8", 1: "1bit_u8"}


def hqq_packed(found: torch.Tensor, bits: int) -> torch.Tensor:
    """The rows of the matrix in as many parts as a byte or word has fields, the first in the highest bits."""
    count = 10 if bits == 3 else 8 // bits
    found = torch.nn.functional.pad(found, (0, 0, 0, -len(found) % count)).to(torch.int32)
    parts = found.reshape(count, -1, found.shape[1])
    whole = sum(part << bits * (count - 1 - number) for number, part in enumerate(parts))
    return whole if bits == 3 else whole.to(torch.uint8)


def hqq(bits: int, axis: int, group: int, dtype: torch.dtype = BF16, view: bool = False):
    """Codes less zero points, rounded, times scales, rounded: in the type that the model computes in."""
    def pack(name: str, out: int, inputs: int, generator: torch.Generator) -> Packed:
        count = out * inputs // group
        shape = (count, group) if axis == 1 else (group, count)
        found = fields(shape, bits, generator)
        sizes = (count, 1) if axis == 1 else (1, count)
        scales = numbers(sizes, generator, dtype)
        zeros = (torch.rand(sizes, generator=generator) * 2**bits).to(dtype)
        packed = hqq_packed(found, bits)
        members = {
            "W_q": packed.view(dtype) if view else packed, "scale": scales, "zero": zeros,
            "shape": torch.tensor([out, inputs]), "nbits": torch.tensor(bits, dtype=torch.int32),
            "group_size": torch.tensor(group, dtype=torch.int32), "axis": torch.tensor(axis, dtype=torch.int32),
            "packing": word(PACKINGS[bits]), "unpack_view_dtype": word("torch.int32" if bits == 3 else "torch.uint8"),
            "view_as_float": flag(view), "quant_scale": flag(0), "quant_zero": flag(0), "compute_dtype": word(str(dtype)),
            "offload_meta": flag(0), "encoded_state_dict": flag(1), "stores_quant_config": flag(1),
            "channel_wise": flag(1), "optimize": flag(1), "round_zero": flag(bits == 4),
        }
        return {f"{name}.{key}": value for key, value in members.items()}, (
            (found.to(dtype) - zeros) * scales).reshape(out, inputs)
    return pack


def hqq_method(name: str, bits: int, axis: int, group: int, dtype: torch.dtype = BF16, view: bool = False) -> Method:
    weights = {"nbits": bits, "group_size": group, "axis": axis, "view_as_float": view}
    settings = {"quant_method": "hqq", "skip_modules": ["lm_head"], "quant_config": {
        "weight_quant_params": weights, "scale_quant_params": None, "zero_quant_params": None, "offload_meta": False}}
    return Method(name, settings, hqq(bits, axis, group, dtype, view), f"HQQ-Q{bits}", "HQQ", dtype)


# --- torchao --------------------------------------------------------------------------------------

def torch_type(dtype: torch.dtype | str) -> dict:
    return {"_type": "torch.dtype", "_data": str(dtype).removeprefix("torch.")}


def entry(kind: str, parts: list[str], **attributes) -> str:
    return json.dumps({"_type": kind, "_data": attributes, "_tensor_data_names": parts})


def torchao_header(kind: str, attributes: dict):
    """What the header says of each weight, by the tensors that are there."""
    def header(tensors: Tensors) -> dict[str, str]:
        stated: dict[str, str] = {}
        for name in tensors:
            if name.endswith("._weight_qdata"):
                prefix = name.removesuffix("qdata")
                parts = [part.removeprefix(prefix) for part in tensors if part.startswith(prefix)]
                stated[prefix.removesuffix("_weight_") + "weight"] = entry(kind, parts, **attributes)
            elif "._weight_" not in name:
                stated[name] = json.dumps({"_type": "Tensor"})
        return stated | {"tensor_names": json.dumps(list(stated))}
    return header


def torchao_parts(name: str, **parts: torch.Tensor) -> Tensors:
    return {f"{name}._weight_{part}": tensor for part, tensor in parts.items()}


def torchao_integers(blocks: tuple[int, int], bits: int = 8, zeros: bool = True, dtype: torch.dtype = BF16,
                     scale: torch.dtype = F32):
    """Codes less zero points in the type of the weight, where both are exact; times scales, rounded once."""
    def pack(name: str, out: int, inputs: int, generator: torch.Generator) -> Packed:
        rows, columns = min(blocks[0], out), min(blocks[1], inputs)
        shape = (out // rows, inputs // columns)
        found = codes((out, inputs), generator).view(torch.int8) >> (8 - bits)
        scales = numbers(shape, generator, scale)
        tensors = torchao_parts(name, qdata=found, scale=scales)
        whole = found.to(F32)
        if zeros:
            origins = codes(shape, generator).view(torch.int8) >> (8 - bits)
            tensors |= torchao_parts(name, zero_point=origins)
            whole = whole - spread(origins.to(F32), rows, columns, out, inputs)
        return tensors, (whole * spread(scales.to(F32), rows, columns, out, inputs)).to(dtype)
    return pack


def torchao_floats(blocks: tuple[int, int], dtype: torch.dtype = BF16):
    def pack(name: str, out: int, inputs: int, generator: torch.Generator) -> Packed:
        rows, columns = min(blocks[0], out), min(blocks[1], inputs)
        found, scales = fp8_codes((out, inputs), generator), numbers((out // rows, inputs // columns), generator)
        tensors = torchao_parts(name, qdata=found, scale=scales)
        return tensors, (found.to(F32) * spread(scales, rows, columns, out, inputs)).to(dtype)
    return pack


def torchao_int4(group: int, dtype: torch.dtype = BF16):
    """Two in a byte; scale, and the value of zero, for each group: in 32 bits, rounded once."""
    def pack(name: str, out: int, inputs: int, generator: torch.Generator) -> Packed:
        found = fields((out, inputs), 4, generator)
        scales = numbers((inputs // group, out), generator, dtype)
        zeros = (numbers(scales.shape, generator) - 0.005).to(dtype)
        tensors = torchao_parts(name, qdata=nibbles(found ^ 8).view(torch.int8), scale=scales, zero_point=zeros)
        wide = scales.to(F32).T.repeat_interleave(group, 1)
        lowest = (zeros.to(F32) - scales.to(F32) * 8).T.repeat_interleave(group, 1)
        return tensors, (found.to(F32) * wide + lowest).to(dtype)
    return pack


def torchao_micro(kind: str):
    """MX and NVFP4: the tensors of others under torchao's names."""
    def pack(name: str, out: int, inputs: int, generator: torch.Generator) -> Packed:
        if kind == "mx8":
            found, scales = fp8_codes((out, inputs), generator), powers((out, inputs // 32), generator)
            whole = found.to(F32) * power(scales).repeat_interleave(32, 1)
            return torchao_parts(name, qdata=found, scale=scales.view(torch.float8_e8m0fnu)), whole.to(BF16)
        if kind == "mx4":
            tensors, whole = mxfp4("q", "s", torch.float8_e8m0fnu)(name, out, inputs, generator)
            return torchao_parts(
                name, qdata=tensors[f"{name}.q"].view(torch.uint8), scale=tensors[f"{name}.s"]), whole
        tensors, whole = nvfp4("g", False, "q", "s")(name, out, inputs, generator)
        return torchao_parts(name, qdata=tensors[f"{name}.q"], scale=tensors[f"{name}.s"],
                             per_tensor_scale=tensors[f"{name}.g"]), whole
    return pack


def torchao_method(name: str, kind: str, pack, type_name: str, computed: torch.dtype = BF16, **attributes) -> Method:
    settings = {"quant_method": "torchao", "modules_to_not_convert": ["lm_head"], "quant_type": {"default": {}}}
    return Method(name, settings, pack, type_name, "torchao", computed, header=torchao_header(kind, attributes))


def integer_method(name: str, bits: int, blocks: tuple[int, int], dtype: torch.dtype = BF16, **more) -> Method:
    return torchao_method(
        name, "IntxUnpackedToInt8Tensor", torchao_integers(blocks, bits, dtype=dtype, scale=dtype, **more),
        f"TorchAO-INT{bits}", dtype, target_dtype=torch_type(f"int{bits}"), dtype=torch_type(dtype),
        activation_quantization=None)


# --- AutoRound ------------------------------------------------------------------------------------

def auto_round(name: str, packing: str | None, pack, type_name: str, method: str, dtype: torch.dtype = BF16,
               **settings) -> Method:
    stated = {"quant_method": "auto-round", "bits": 4, "group_size": 64, "sym": True, "data_type": "int"} | settings
    return Method(name, stated | ({"packing_format": packing} if packing else {}), pack, type_name, method, dtype)


METHODS = [
    *(hqq_method(f"hqq-{bits}", bits, 1, 64) for bits in (8, 4, 3, 2, 1)),
    *(hqq_method(f"hqq-{bits}-columns", bits, 0, 64, F16) for bits in (8, 4, 3, 2, 1)),
    hqq_method("hqq-f32", 4, 1, 32, F32),
    hqq_method("hqq-floats", 4, 1, 64, view=True),
    torchao_method("torchao-int8", "Int8Tensor", torchao_integers((1, 2**30), zeros=False), "TorchAO-INT8",
                   block_size=[1, 192], dtype=torch_type(BF16), reduce_range=False),
    torchao_method("torchao-int8-f16", "Int8Tensor", torchao_integers((1, 32), dtype=F16), "TorchAO-INT8", F16,
                   block_size=[1, 32], dtype=torch_type(F16), reduce_range=False),
    torchao_method("torchao-int8-all", "Int8Tensor", torchao_integers((2**30, 2**30)), "TorchAO-INT8",
                   dtype=torch_type(BF16)),
    *(integer_method(f"torchao-int{bits}", bits, (1, 32)) for bits in (1, 4, 8)),
    integer_method("torchao-int3-rows", 3, (1, 2**30), F16),
    torchao_method("torchao-int4-packed", "Int4Tensor", torchao_int4(64), "TorchAO-INT4", block_size=[1, 64],
                   shape=[192, 192]),
    torchao_method("torchao-fp8", "Float8Tensor", torchao_floats((1, 2**30)), "FP8-E4M3", block_size=[1, 192],
                   dtype=torch_type(BF16)),
    torchao_method("torchao-fp8-all", "Float8Tensor", torchao_floats((2**30, 2**30)), "FP8-E4M3", dtype=torch_type(BF16)),
    torchao_method("torchao-fp8-blocks", "Float8Tensor", torchao_floats((32, 32)), "FP8-E4M3", block_size=[32, 32],
                   dtype=torch_type(BF16)),
    torchao_method("torchao-mx8", "MXTensor", torchao_micro("mx8"), "MXFP8", elem_dtype=torch_type("float8_e4m3fn"),
                   block_size=32, orig_dtype=torch_type(BF16), is_swizzled_scales=False),
    torchao_method("torchao-mx4", "MXTensor", torchao_micro("mx4"), "MXFP4", elem_dtype=torch_type("float4_e2m1fn_x2"),
                   block_size=32, orig_dtype=torch_type(BF16), is_swizzled_scales=False),
    torchao_method("torchao-nvfp4", "NVFP4Tensor", torchao_micro("nvfp4"), "NVFP4", block_size=16,
                   orig_dtype=torch_type(BF16), is_swizzled_scales=False),
    auto_round("auto-round-gptq", "auto_round:auto_gptq", gptq(4, 64, ordered=None), "GPTQ-Q4", "GPTQ", F16),
    auto_round("auto-round-default", None, gptq(4, 64, ordered=None), "GPTQ-Q4", "GPTQ", F16),
    auto_round("auto-round-intel", "auto_round:gptq", gptq(4, 64, ordered=None), "GPTQ-Q4", "GPTQ", F16,
               quant_method="intel/auto-round"),
    auto_round("auto-round-plain", "auto_round", gptq(4, 64, version=2, ordered=None), "GPTQ-Q4", "GPTQ", F16, sym=False),
    auto_round("auto-round-gptqmodel", "auto_round:gptqmodel", gptq(4, 64, version=2), "GPTQ-Q4", "GPTQ", F16,
               sym=False),
    auto_round("auto-round-3", "auto_round", gptq(3, 64, version=2, ordered=None), "GPTQ-Q3", "GPTQ", F16, bits=4,
               extra_config={".*self_attn.*": {"bits": 3}, ".*mlp\\..*_proj": {"bits": 3}, "lm_head": {"bits": 16}}),
    auto_round("auto-round-awq", "auto_round:auto_awq", awq(64), "AWQ-Q4", "AWQ", F16),
    auto_round("auto-round-fp8", "auto_round:fp8_static", fp8_scales(lambda out: [out], BF16, STATIC), "FP8-E4M3",
               "FP8", bits=8, group_size=-1, data_type="fp", act_bits=8),
    auto_round("auto-round-fp8-blocks", None, fp8_block("bfloat16", 64, 64), "FP8-E4M3", "FP8", bits=8,
               group_size=[64, 64], data_type="fp"),
    auto_round("auto-round-mxfp4", "auto_round:llm_compressor", mxfp4("weight_packed", "weight_scale"), "MXFP4",
               "AutoRound", group_size=32, data_type="mx_fp", act_bits=4),
    auto_round("auto-round-mxfp8", "auto_round:llm_compressor", fp8_block("u8", 1, 32, suffix="weight_scale"), "MXFP8",
               "AutoRound", bits=8, group_size=32, data_type="mx_fp_rceil", act_bits=8),
    auto_round("auto-round-nvfp4", "auto_round:llm_compressor", nvfp4("weight_global_scale", True, "weight_packed"),
               "NVFP4", "AutoRound", group_size=16, data_type="nv_fp", act_bits=4),
]

EVERY = [*quantized_sources.METHODS, *METHODS]
