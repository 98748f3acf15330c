"""One tensor of a checkpoint, on the map of its file, checked against its digest when it is first touched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import xxhash

from . import manifest as manifests
from .container import BITS, Entry, MappedFile
from .errors import DigestError, needs, printable

if TYPE_CHECKING:
    import numpy as np
    import torch as pytorch

    from .checkpoint import Checkpoint
    from .dequantized import DequantizedTensor

# Where a reader may begin if there are no digests: anywhere, but many small parts cost more than they save.
UNCHECKED_PIECE = 256 << 10

NUMPY = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "U32": "<u4", "I32": "<i4",
    "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8", "C64": "<c8",
}  # fmt: skip

TORCH = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "F16": "float16",
    "BF16": "bfloat16", "U32": "uint32", "I32": "int32", "F32": "float32", "U64": "uint64", "I64": "int64",
    "F64": "float64", "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip


class LazyTensor:
    """A tensor of a checkpoint. Nothing of its data is read before it is asked for.

    `name`, `dtype` (as safetensors spells it), `shape`, `file`, `offset` and `size` (bytes) are known from the header.
    Slicing the first dimension (`tensor[a:b]`) reads and checks only the pieces that the slice lies in, where the
    manifest has digests of pieces, and the whole tensor where it has not.

    A tensor of 4-bit codes is what is stored; `dequantize()` gives the weight that it stands for.
    """

    def __init__(
        self, checkpoint: Checkpoint, file: MappedFile, entry: Entry, digests: manifests.Digests | None
    ) -> None:
        self.name, self.dtype, self.shape = entry.name, entry.dtype, entry.shape
        self.offset, self.size = entry.offset, entry.size
        self.digests = digests
        self._checkpoint, self._file = checkpoint, file
        self._touched: set[int] = set()
        self._check_under_way: Future | None = None

    @property
    def file(self) -> str:
        return self._file.path

    @property
    def piece(self) -> int:
        """Bytes between places where a reader may begin."""
        return self.digests.piece if self.digests is not None else UNCHECKED_PIECE

    def __repr__(self) -> str:
        return f"LazyTensor('{printable(self.name)}', {self.dtype}, {list(self.shape)})"

    def get_shape(self) -> list[int]:
        return list(self.shape)

    def get_dtype(self) -> str:
        return self.dtype

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a scalar has no length")
        return self.shape[0]

    def bytes(self, start: int = 0, stop: int | None = None) -> memoryview:
        """The mapped bytes from `start` to `stop`, counted from the tensor's first.

        Raises DigestError where a piece that holds one of them differs from what was written, CheckpointError where
        the file has changed since it was opened.
        """
        stop = self.size if stop is None else stop
        if not 0 <= start <= stop <= self.size:
            raise IndexError(f"bytes {start} to {stop} of {self.size}")
        self._file.check_unchanged()
        if self._check_under_way is not None:
            self._check_under_way.result()
        else:
            self._touch(start, stop)
        return self._file.view[self.offset + start : self.offset + stop]

    @property
    def scheme(self) -> str | None:
        """What packed the weight, as `nibble inspect` names it: "bitsandbytes-nf4", "bitsandbytes-fp4", or None."""
        state = self._checkpoint.state_of(self.name)
        return None if state is None else f"bitsandbytes-{state.rpartition('__')[2]}"

    def dequantize(self) -> DequantizedTensor:
        """The weight that 4-bit codes stand for; its `torch()`, `numpy()` and slices are computed when asked for.

        Raises TypeError for a tensor that is not 4-bit, CheckpointError where its statistics do not fit it.
        """
        from .dequantized import DequantizedTensor

        state = self._checkpoint.state_of(self.name)
        if state is None:
            raise TypeError(f"{self!r} is not 4-bit: torch() and numpy() give its values")
        return DequantizedTensor(self._checkpoint.tensors, self, state)

    def numpy(self) -> np.ndarray:
        """A NumPy array on the map (what is written to it stays in memory)."""
        import numpy

        if self.dtype not in NUMPY:
            raise TypeError(f"{self!r}: NumPy has no such dtype; use torch()")
        return numpy.frombuffer(self.bytes(), dtype=NUMPY[self.dtype]).reshape(self.shape)

    def torch(self, device: pytorch.device | str | int | None = None) -> pytorch.Tensor:
        """A tensor on the map itself for the CPU, or straight from the map to another device."""
        tensor = self._as_torch(self.bytes(), self.shape)
        return tensor if device is None else tensor.to(device)

    def __getitem__(self, index: Any) -> pytorch.Tensor:
        """Torch's indexing; a plain slice of the first dimension reads that slice only."""
        if isinstance(index, slice) and self.shape and BITS[self.dtype] >= 8:
            start, stop, step = index.indices(self.shape[0])
            if step == 1:
                stop = max(start, stop)
                row = math.prod(self.shape[1:]) * BITS[self.dtype] // 8
                return self._as_torch(self.bytes(start * row, stop * row), (stop - start, *self.shape[1:]))
        return self.torch()[index]

    def _as_torch(self, data: memoryview, shape: Sequence[int]) -> pytorch.Tensor:
        with needs("a tensor of torch", "torch", "numpy() and bytes() do without it"):
            import torch

        if self.dtype not in TORCH or not hasattr(torch, TORCH[self.dtype]):
            raise TypeError(f"{self!r}: this torch has no such dtype")
        dtype = getattr(torch, TORCH[self.dtype])
        if not data:
            return torch.empty(tuple(shape), dtype=dtype)
        # Other writers do not align what follows an odd tensor.
        buffer = bytearray(data) if dtype.itemsize > 1 and self.offset % dtype.itemsize else data
        return torch.frombuffer(buffer, dtype=torch.uint8).view(dtype).view(tuple(shape))

    def check_with(self, pool: ThreadPoolExecutor) -> None:
        """Has the whole tensor checked by another thread; whoever asks for it waits for that."""
        self._check_under_way = pool.submit(self._touch, 0, self.size)

    def will_need(self, start: int, stop: int) -> None:
        """Has the system read some of the bytes ahead; returns at once."""
        self._file.will_need(self.offset + start, stop - start)

    def release(self) -> None:
        """Gives back the memory that the mapped bytes take in this process, and with it what was written to them there;
        tensors on the map stay valid, and are read again."""
        self._file.release(self.offset, self.size)

    def trust(self) -> None:
        """Takes it as checked."""
        self._touched.update(range(-(-self.size // self.piece)))

    def _touch(self, start: int, stop: int) -> None:
        """Counts, and checks unless told otherwise, what has not been touched before."""
        first, last = start // self.piece, -(-stop // self.piece)
        pieces = [index for index in range(first, last) if index not in self._touched]
        if not pieces:
            return
        self._file.will_need(self.offset + start, stop - start + self._checkpoint.read_ahead)
        if self.digests is None:
            read = stop - start
        elif len(pieces) * self.piece >= self.size:
            try:
                self._check(0, self.size, self.digests.whole)
            except DigestError:
                # The piece that is wrong says more than the tensor.
                self._check_pieces(self.digests, pieces)
                raise
            read = self.size
        else:
            read = self._check_pieces(self.digests, pieces)
        self._touched.update(pieces)
        self._checkpoint.count(read)

    def _check_pieces(self, digests: manifests.Digests, pieces: list[int]) -> int:
        """How many bytes they are."""
        read = 0
        for index in pieces:
            begin = index * self.piece
            size = min(self.piece, self.size - begin)
            self._check(begin, size, digests.of_piece(index))
            read += size
        return read

    def _check(self, start: int, size: int, expected: str) -> None:
        begin = self.offset + start
        found = xxhash.xxh3_64_hexdigest(self._file.view[begin : begin + size])
        if found != expected:
            # Bytes that changed under the map are another matter than bytes that were always wrong.
            self._file.check_unchanged()
            raise DigestError(self._file.path, self.name, begin, size, expected, found)
