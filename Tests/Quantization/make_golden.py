#!/usr/bin/env python3
"""Writes fixtures/quantization/golden.bin: what bitsandbytes 0.50.2 makes of difficult values on the CPU.

    pip install torch==2.13.0 bitsandbytes==0.50.2 numpy
    Tests/Quantization/make_golden.py [OUTPUT [BLOCKS]]

The file is a sequence of records, each a line of ASCII and raw little-endian arrays:

    map                              256 f32: create_dynamic_map()
    fourbit CODE TYPE BLOCK COUNT    COUNT values of TYPE, packed codes, absmax f32, dequantized values of TYPE
    double COUNT                     COUNT f32, offset f32, codes u8, nested absmax f32, dequantized f32

BLOCKS (default 6) is the number of blocks per record; a larger file serves for a longer comparison:
NIBBLE_GOLDEN=FILE swift test --filter GoldenTests.
"""
import sys
from pathlib import Path

import bitsandbytes
import numpy as np
import torch
from bitsandbytes.functional import (
    create_dynamic_map, dequantize_4bit, dequantize_blockwise, get_4bit_type, quantize_4bit, quantize_blockwise)

assert bitsandbytes.__version__ == "0.50.2", bitsandbytes.__version__
TYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
LARGEST = {"bf16": 3.38e38, "f16": 65504.0, "f32": 3.40e38}
rng = np.random.default_rng(20)


def raw(tensor):
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def block(kind, code, name, size):
    """`size` values as f32; how they are difficult depends on `kind`."""
    levels = np.sort(get_4bit_type(code, device="cpu").numpy())
    middles = (levels[1:] + levels[:-1]) / 2
    if kind == 0:  # ordinary weights
        return rng.standard_normal(size) * 0.02
    if kind == 1:  # on and next to the midpoints, for an absmax that is a power of two or is not
        absmax = [1.0, 0.03125, 0.0291][rng.integers(3)]
        values = absmax * rng.choice(middles, size) * (1 + rng.integers(-2, 3, size) * 2.0**-[8, 11, 24][rng.integers(3)])
        values[0] = absmax
        return values
    if kind == 2:  # zeros of both signs, alone or with something tiny
        values = np.where(rng.random(size) < 0.5, 0.0, -0.0)
        if rng.random() < 0.5:
            values[-1] = -1e-3
        return values
    if kind == 3:  # subnormals, whose reciprocal overflows
        return rng.standard_normal(size) * {"bf16": 2e-39, "f16": 2e-7, "f32": 1e-43}[name]
    if kind == 4:  # next to overflow, whose reciprocal is subnormal, and values that vanish beside it
        values = rng.uniform(-1, 1, size) * LARGEST[name]
        values[:: 3] *= 1e-37
        return values
    return rng.standard_normal(size) * 10.0 ** rng.uniform(-30, 30)  # any magnitude


def main():
    root = Path(__file__).resolve().parents[2]
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "fixtures/quantization/golden.bin"
    blocks = int(sys.argv[2]) if len(sys.argv) > 2 else 6
    with open(output, "wb") as file:
        file.write(b"map\n" + raw(create_dynamic_map()))
        for code in ("nf4", "fp4"):
            for name, dtype in TYPES.items():
                for size in (32, 64, 128, 1024):
                    parts = [block(i % 6, code, name, size) for i in range(blocks if size < 1024 else max(1, blocks // 6))]
                    parts.append(block(rng.integers(6), code, name, size)[: rng.choice([1, 2, size // 2 + 1, size - 1])])
                    largest = float(torch.finfo(dtype).max)
                    values = np.clip(np.concatenate(parts), -largest, largest)
                    values = torch.from_numpy(values).to(dtype)
                    assert torch.isfinite(values).all()
                    packed, state = quantize_4bit(values, blocksize=size, quant_type=code)
                    # Dequantized to f32 and then rounded: with AVX512-BF16 bitsandbytes flushes subnormals.
                    state.dtype = torch.float32
                    plain = dequantize_4bit(packed, state).to(dtype)
                    file.write(f"fourbit {code} {name} {size} {values.numel()}\n".encode())
                    file.write(raw(values) + raw(packed) + raw(state.absmax) + raw(plain.reshape(-1)))
        for base in (1, 255, 256, 257, 700):
            count = base * max(1, blocks // 6)
            for kind in range(4):
                absmax = [
                    np.abs(rng.standard_normal(count)) * 0.03 + 0.05,
                    10.0 ** rng.uniform(-8, 2, count),
                    np.full(count, 0.1),
                    np.full(count, 2.0**-126) + rng.integers(0, 3, count) * 2.0**-149,
                ][kind]
                absmax = torch.from_numpy(absmax).to(torch.float32)
                offset = absmax.mean()
                codes, state = quantize_blockwise(absmax - offset, blocksize=256)
                plain = dequantize_blockwise(codes, state) + offset
                file.write(f"double {count}\n".encode())
                file.write(raw(absmax) + raw(offset.reshape(1)) + raw(codes) + raw(state.absmax) + raw(plain))


main()
