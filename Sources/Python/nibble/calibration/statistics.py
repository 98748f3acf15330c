"""Files of statistics: safetensors in 32 bits, written as a stream.

    INPUT.sums    [inputs], or [experts, inputs] of a stacked parameter: Σx² over the tokens
    INPUT.counts  [1], or [experts]: how many tokens that were
    INPUT.gram    [inputs, inputs], or [experts, inputs, inputs]: Σx·xᵀ, if asked for

`__metadata__` says which weight of the checkpoint has which input.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..container import MappedFile
from .sums import Sums

# Bytes that are copied at once.
PIECE = 8 << 20


@dataclass
class Entry:
    """One input: of all matrices of `sums`, or of one expert."""

    name: str
    sums: Sums
    expert: int | None

    @property
    def experts(self) -> list[int]:
        return [self.expert] if self.expert is not None else list(range(self.sums.experts))

    @property
    def is_stacked(self) -> bool:
        return self.expert is None and self.sums.is_stacked


@dataclass
class Tensor:
    name: str
    shape: list[int]
    data: Iterable[Any]

    @property
    def size(self) -> int:
        return 4 * math.prod(self.shape)


def tensors_of(entries: list[Entry]) -> Iterator[Tensor]:
    for entry in entries:
        front, width = [len(entry.experts)] if entry.is_stacked else [], entry.sums.width
        yield Tensor(f"{entry.name}.sums", [*front, width], squares(entry))
        counts = np.array([entry.sums.counts[expert] for expert in entry.experts], "<f4")
        yield Tensor(f"{entry.name}.counts", [len(counts)], [counts])
        if entry.sums.has_gram:
            yield Tensor(f"{entry.name}.gram", [*front, width, width], grams(entry))


def squares(entry: Entry) -> Iterator[np.ndarray]:
    for expert in entry.experts:
        yield entry.sums.squares_of(expert)


def grams(entry: Entry) -> Iterator[np.ndarray]:
    for expert in entry.experts:
        yield from entry.sums.gram_of(expert)


def stored(part: MappedFile) -> Iterator[Tensor]:
    for entry in sorted(part.entries.values(), key=lambda entry: entry.offset):
        yield Tensor(entry.name, list(entry.shape), piecewise(part, entry.offset, entry.size))


def piecewise(part: MappedFile, offset: int, size: int) -> Iterator[memoryview]:
    for start in range(offset, offset + size, PIECE):
        stop = min(start + PIECE, offset + size)
        yield part.view[start:stop]
        part.release(start, stop - start)


def write(path: str, metadata: dict[str, str], tensors: Iterable[Tensor]) -> None:
    """All of it, to the disk."""
    listed = list(tensors)
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    position = 0
    for tensor in listed:
        end = position + tensor.size
        header[tensor.name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [position, end]}
        position = end
    data = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    data += b" " * (-len(data) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(data)) + data)
        for tensor in listed:
            for piece in tensor.data:
                file.write(np.ascontiguousarray(piece).data if isinstance(piece, np.ndarray) else piece)
        file.flush()
        os.fsync(file.fileno())
