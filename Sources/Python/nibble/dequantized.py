"""The weight that bitsandbytes' 4-bit codes stand for, computed from the map a few rows or all at a time.

Needs neither torch nor bitsandbytes. The values are those of bitsandbytes' `dequantize_4bit` on the CPU, bit for bit:
level times the block's maximum in 32 bits, rounded once to the weight's dtype. (Where rows do not end with a block its
kernel for the CPU takes other blocks' maxima; these are the values of its other kernels.)
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .container import read_json
from .errors import CheckpointError, needs, printable

if TYPE_CHECKING:
    import torch as pytorch

    from .lazy import LazyTensor

STATE = ".quant_state.bitsandbytes__"
KINDS = ("nf4", "fp4")
BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)

# By the names that the state has for them.
DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def state_name(names: Container[str], weight: str) -> str | None:
    """The tensor that describes a packed weight, if there is one."""
    return next((name for kind in KINDS if (name := f"{weight}{STATE}{kind}") in names), None)


class DequantizedTensor:
    """A 4-bit weight as it was before it was packed: `name`, `dtype` (as safetensors spells it) and `shape` are the
    weight's own, `kind` is "nf4" or "fp4". Nothing is computed before it is asked for.

    Slicing the first dimension (`weight[a:b]`) reads and checks only the codes and block maxima of these rows.
    """

    def __init__(self, tensors: Mapping[str, LazyTensor], packed: LazyTensor, state: str) -> None:
        self.name, self._packed = packed.name, packed
        self.kind = state.rpartition("__")[2]
        document = read_json(bytes(tensors[state].bytes()), f"{packed.file}: tensor '{printable(state)}'")
        if not isinstance(document, dict):
            raise self._refuse("its quant_state is not an object")
        self.shape, self.dtype, self.block_size = self._described(document)
        count = math.prod(self.shape)
        if packed.size != -(-count // 2):
            raise self._refuse(f"{packed.size} bytes of codes, {-(-count // 2)} are the shape {list(self.shape)}")
        blocks = -(-count // self.block_size)
        self._nested = f"{self.name}.nested_absmax" in tensors
        self._absmax = self._part(tensors, "absmax", "U8" if self._nested else "F32", blocks)
        self._levels = self._part(tensors, "quant_map", "F32", 16)
        if self._nested:
            block, offset = document.get("nested_blocksize"), document.get("nested_offset")
            if type(block) is not int or block <= 0:
                raise self._refuse("nested_blocksize is not a count")
            if not isinstance(offset, (int, float)):
                raise self._refuse("nested_offset is not a number")
            self._nested_block, self._offset = block, float(offset)
            self._nested_absmax = self._part(tensors, "nested_absmax", "F32", -(-blocks // self._nested_block))
            self._nested_levels = self._part(tensors, "nested_quant_map", "F32", 256)

    def _described(self, document: dict[str, Any]) -> tuple[tuple[int, ...], str, int]:
        shape, dtype, block = document.get("shape"), document.get("dtype"), document.get("blocksize")
        if document.get("quant_type") != self.kind:
            raise self._refuse(f"quant_type {printable(str(document.get('quant_type')))} in the state of {self.kind}")
        if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 1 << 63 for size in shape):
            raise self._refuse("its shape is not a list of counts")
        if dtype not in DTYPES:
            raise self._refuse(f"dtype {printable(str(dtype))}; {', '.join(DTYPES)} are known")
        if type(block) is not int or block not in BLOCKS:
            raise self._refuse(f"blocks of {printable(str(block))}; 32, 64, … 4096 are known")
        return tuple(shape), DTYPES[dtype], block

    def _part(self, tensors: Mapping[str, LazyTensor], part: str, dtype: str, count: int) -> LazyTensor:
        tensor = tensors.get(f"{self.name}.{part}")
        if tensor is None:
            raise self._refuse(f"its {part} is missing")
        if tensor.dtype != dtype or math.prod(tensor.shape) != count:
            raise self._refuse(f"its {part} is {tensor.dtype} {list(tensor.shape)}, {count} of {dtype} expected")
        return tensor

    def _refuse(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self._packed.file}: tensor '{printable(self.name)}': {what}")

    def __repr__(self) -> str:
        return f"DequantizedTensor('{printable(self.name)}', {self.kind}, {self.dtype}, {list(self.shape)})"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a scalar has no length")
        return self.shape[0]

    def numpy(self) -> np.ndarray:
        """As a NumPy array. NumPy has no bfloat16: weights of that dtype come as the same values in float32."""
        values = self._values(0, math.prod(self.shape))
        return rounded(values, self.dtype).reshape(self.shape)

    def torch(self, device: Any = None) -> pytorch.Tensor:
        """The values as a tensor of the weight's own dtype."""
        return self._as_torch(0, math.prod(self.shape), self.shape, device)

    def __getitem__(self, index: Any) -> pytorch.Tensor:
        """Torch's indexing; a plain slice of the first dimension reads and computes that slice only."""
        if isinstance(index, slice) and self.shape:
            start, stop, step = index.indices(self.shape[0])
            if step == 1:
                stop, row = max(start, stop), math.prod(self.shape[1:])
                return self._as_torch(start * row, stop * row, (stop - start, *self.shape[1:]), None)
        return self.torch()[index]

    def _as_torch(self, start: int, stop: int, shape: tuple[int, ...], device: Any) -> pytorch.Tensor:
        with needs("a tensor of torch", "torch", "numpy() does without it"):
            import torch

        dtype = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}[self.dtype]
        # What is rounded already does not change here.
        return torch.from_numpy(rounded(self._values(start, stop), self.dtype)).to(device, dtype).view(shape)

    def _values(self, start: int, stop: int) -> np.ndarray:
        """The elements from `start` to `stop`, in 32 bits."""
        codes = np.frombuffer(self._packed.bytes(start // 2, -(-stop // 2)), np.uint8)
        levels = array(self._levels, 0, 16)
        # Both elements of a byte at once, the one in the high half first.
        pairs = np.stack([levels.repeat(16), np.tile(levels, 16)], axis=1)
        values = pairs[codes].reshape(-1)[start % 2 :][: stop - start]
        first = start // self.block_size
        maxima = self._maxima(first, -(-stop // self.block_size))
        values *= maxima.repeat(self.block_size)[start - first * self.block_size :][: stop - start]
        return values

    def _maxima(self, start: int, stop: int) -> np.ndarray:
        """Those of the blocks from `start` to `stop`."""
        stop = max(start, stop)
        if not self._nested:
            return array(self._absmax, start, stop)
        codes = array(self._absmax, start, stop)
        first = start // self._nested_block
        scales = array(self._nested_absmax, first, -(-stop // self._nested_block))
        scales = scales.repeat(self._nested_block)[start - first * self._nested_block :][: stop - start]
        return array(self._nested_levels, 0, 256)[codes] * scales + np.float32(self._offset)


def array(tensor: LazyTensor, start: int, stop: int) -> np.ndarray:
    """Some elements of a statistic, in whatever shape it is stored."""
    size = 1 if tensor.dtype == "U8" else 4
    return np.frombuffer(tensor.bytes(start * size, stop * size), np.uint8 if size == 1 else "<f4")


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """To the nearest number of that dtype, of two equally near to the even one; bfloat16 stays in 32 bits."""
    if dtype == "F32":
        return values
    if dtype == "F16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16)
    bits = values.view(np.uint32)
    half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return np.where(np.isnan(values), values, ((bits + half) & np.uint32(0xFFFF_0000)).view(np.float32))
