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


METHODS = [
    *(hqq_method(f"hqq-{bits}", bits, 1, 64) for bits in (8, 4, 3, 2, 1)),
    *(hqq_method(f"hqq-{bits}-columns", bits, 0, 64, F16) for bits in (8, 4, 3, 2, 1)),
    hqq_method("hqq-f32", 4, 1, 32, F32),
    hqq_method("hqq-floats", 4, 1, 64, view=True),
]

EVERY = [*quantized_sources.METHODS, *METHODS]
