"""What one layer hands to the next, of all sequences: in memory, or past a limit in the file alone.

It is in a file in any case, written once for each layer, so that an interrupted run can go on. The file is read and
written, not mapped: a full disk is then an error, and what has been read is not counted as this process's memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import xxhash

from .errors import FAILED, Refusal, reason

# Bytes that are read at once to check a file.
PIECE = 8 << 20


@dataclass(frozen=True)
class Stored:
    """A file of hidden states, [tokens, width]."""

    name: str
    tokens: int
    width: int
    dtype: str
    digest: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def size(self) -> int:
        return self.tokens * self.width * getattr(torch, self.dtype).itemsize


class HiddenStates:
    """Those that go into the layer at hand are read by rows of tokens, those that come out are written in order."""

    def __init__(self, folder: str, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._stored: Stored | None = None
        self._memory: torch.Tensor | None = None
        self._reader: Any = None
        self._writer: Any = None

    def open(self, stored: Stored) -> bool:
        """Takes up what a run left behind; False if it is not as it was written."""
        path = os.path.join(self._folder, stored.name)
        try:
            if os.path.getsize(path) != stored.size or digest(path) != stored.digest:
                return False
        except FileNotFoundError:
            return False
        self._begin(stored)
        if stored.size <= self._limit:
            self._memory = self._read(0, stored.tokens).clone()
        return True

    def _begin(self, stored: Stored) -> None:
        self.close()
        self._stored, self._memory = stored, None
        self._reader = open(os.path.join(self._folder, stored.name), "rb")

    @property
    def stored(self) -> Stored | None:
        return self._stored

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """[stop - start, width], on the CPU."""
        return self._memory[start:stop] if self._memory is not None else self._read(start, stop)

    def _read(self, start: int, stop: int) -> torch.Tensor:
        assert self._stored is not None
        dtype = getattr(torch, self._stored.dtype)
        row = self._stored.width * dtype.itemsize
        data = bytearray((stop - start) * row)
        self._reader.seek(start * row)
        if self._reader.readinto(data) != len(data):
            raise Refusal(FAILED, f"{self._reader.name}: shorter than it was written")
        return torch.frombuffer(data, dtype=dtype).view(stop - start, self._stored.width)

    def memory(self, tokens: int, width: int, dtype: torch.dtype) -> torch.Tensor:
        """Room for as many, if possible that of these: rows are read before others take their place."""
        if self._memory is not None and self._memory.dtype == dtype and self._memory.shape == (tokens, width):
            return self._memory
        return torch.empty(tokens, width, dtype=dtype)

    def replace(self, name: str, tokens: int) -> Writer:
        """Where those of the next layer go; they take the place of these when that is finished."""
        return Writer(self, os.path.join(self._folder, name), tokens, self._limit)

    def take(self, stored: Stored, memory: torch.Tensor | None) -> None:
        old = self._stored
        self._begin(stored)
        self._memory = memory
        self._old = old

    def drop_old(self) -> None:
        """Once it has been written down that the new ones count."""
        if self._old is not None:
            os.unlink(os.path.join(self._folder, self._old.name))
            self._old = None

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class Writer:
    def __init__(self, states: HiddenStates, path: str, tokens: int, limit: int) -> None:
        self._states, self._path, self._tokens, self._limit = states, path, tokens, limit
        self._file = open(path, "wb")
        self._digest = xxhash.xxh3_64()
        self._memory: torch.Tensor | None = None
        self._written = 0
        self._width, self._dtype = 0, torch.float32

    def append(self, rows: torch.Tensor) -> None:
        """[tokens, width]"""
        rows = rows.detach().to("cpu").contiguous()
        if not self._written:
            self._width, self._dtype = rows.shape[1], rows.dtype
            if self._tokens * self._width * self._dtype.itemsize <= self._limit:
                self._memory = self._states.memory(self._tokens, self._width, self._dtype)
        data = memoryview(rows.view(torch.uint8).numpy()).cast("B")
        self._digest.update(data)
        self._file.write(data)
        if self._memory is not None:
            self._memory[self._written : self._written + len(rows)] = rows
        self._written += len(rows)

    def finish(self) -> Stored:
        self._file.close()
        name = os.path.basename(self._path)
        dtype = str(self._dtype).removeprefix("torch.")
        stored = Stored(name, self._tokens, self._width, dtype, self._digest.hexdigest())
        self._states.take(stored, self._memory)
        return stored

    def abandon(self) -> None:
        self._file.close()


def digest(path: str) -> str:
    found = xxhash.xxh3_64()
    for piece in pieces(path):
        found.update(piece)
    return found.hexdigest()


def pieces(path: str) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            while piece := file.read(PIECE):
                yield piece
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Refusal(FAILED, f"{path}: {reason(error)}") from None
