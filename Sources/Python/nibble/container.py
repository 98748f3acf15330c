"""A safetensors file under a memory map, its header checked before any of its bytes is used."""

import json
import math
import mmap
import os
import stat
import struct
import sys
from dataclasses import dataclass
from typing import Any

from . import guess
from .errors import CheckpointError, printable

# Bits per element of each dtype, by the name that headers use. F4 and F6 types are packed.
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip

# A private map that may be written to would else be counted against the memory of the machine. Python's mmap
# has no name for it before 3.13.
NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)

# What the reference implementation allows.
LARGEST_HEADER = 100_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file: its values take the bytes from `offset` to `offset + size` of that file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuses an object with a key that stands twice: which of the two counts would be anyone's guess."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def read_json(data: bytes, what: str) -> Any:
    try:
        return json.loads(data, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{what}: not valid JSON: {error}") from None


class MappedFile:
    """The map is private: what is written to a tensor on it, on the CPU, never reaches the file."""

    def __init__(self, path: str, *, sparse: bool = False) -> None:
        self.path, self.name = path, os.path.basename(path)
        try:
            # Without O_NONBLOCK a named pipe would be waited for.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise CheckpointError(f"{path}: {error.strerror}") from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CheckpointError(f"{path}: not a file")
            self.size, self._modified = self._stat(descriptor)
            if self.size < 8:
                raise CheckpointError(f"{path}: {self.size} bytes, too short for a safetensors file")
            self.map = mmap.mmap(
                descriptor,
                self.size,
                flags=mmap.MAP_PRIVATE | NO_RESERVE,
                prot=mmap.PROT_READ | mmap.PROT_WRITE,
            )
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        if sparse and hasattr(self.map, "madvise"):
            self.map.madvise(mmap.MADV_RANDOM)
        self.view = memoryview(self.map)
        # Up to where a reader from front to back has had the system read ahead.
        self._asked = 0
        self.entries = self._read_header()

    @staticmethod
    def _stat(descriptor: int) -> tuple[int, int]:
        status = os.fstat(descriptor)
        return status.st_size, status.st_mtime_ns

    def check_unchanged(self) -> None:
        """To be called before mapped bytes are touched: those beyond a new end would kill the process."""
        if self._descriptor < 0:
            raise CheckpointError(f"{self.path}: the checkpoint is closed")
        size, modified = self._stat(self._descriptor)
        if size != self.size:
            raise CheckpointError(f"{self.path}: {size} bytes, {self.size} when it was opened: changed while in use")
        if modified != self._modified:
            raise CheckpointError(f"{self.path}: written to since it was opened")

    def will_need(self, offset: int, size: int) -> None:
        """Asks the system to read some bytes ahead, once; returns at once."""
        start = offset // mmap.PAGESIZE * mmap.PAGESIZE
        end = min(offset + size, self.size)
        if start <= self._asked:
            # A long range that is in memory already takes as long to ask for as to find that out, page by page.
            start = self._asked
        if end > start and hasattr(self.map, "madvise"):
            self.map.madvise(mmap.MADV_WILLNEED, start, end - start)
            self._asked = -(-end // mmap.PAGESIZE) * mmap.PAGESIZE

    def release(self, offset: int, size: int) -> None:
        """Gives the memory of some bytes back, those pages that are wholly within them; they are read again when they
        are touched. What was written to them is lost."""
        start = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (offset + size) // mmap.PAGESIZE * mmap.PAGESIZE
        if end > start and hasattr(self.map, "madvise") and self._descriptor >= 0:
            self.map.madvise(mmap.MADV_DONTNEED, start, end - start)

    def close(self) -> None:
        """The map itself stays for as long as a tensor lies on it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self.view.release()
        try:
            self.map.close()
        except BufferError:
            pass

    def _read_header(self) -> dict[str, Entry]:
        (length,) = struct.unpack("<Q", self.view[:8])
        if length > min(LARGEST_HEADER, self.size - 8):
            if what := guess.of_bytes(bytes(self.view[: guess.ENOUGH])):
                raise CheckpointError(f"{self.path}: {what}")
            raise CheckpointError(
                f"{self.path}: a header of {length} bytes in a file of {self.size}: not safetensors, or truncated"
            )
        header = read_json(bytes(self.view[8 : 8 + length]), f"{self.path}: header")
        if not isinstance(header, dict):
            raise CheckpointError(f"{self.path}: header: not an object")
        header.pop("__metadata__", None)
        begin = 8 + length
        entries = [self._entry(name, value, begin) for name, value in header.items()]
        # No holes, no overlaps, nothing after the end: every byte belongs to one tensor.
        position = begin
        for entry in sorted(entries, key=lambda entry: (entry.offset, entry.size)):
            if entry.offset != position:
                raise CheckpointError(
                    f"{self.path}: tensor '{printable(entry.name)}' begins at byte {entry.offset}, {position} expected"
                )
            position += entry.size
        if position != self.size:
            raise CheckpointError(
                f"{self.path}: {self.size} bytes, its header speaks of {position}: truncated or damaged"
            )
        return {entry.name: entry for entry in entries}

    def _entry(self, name: str, value: object, begin: int) -> Entry:
        def refuse(what: str) -> CheckpointError:
            return CheckpointError(f"{self.path}: tensor '{printable(name)}': {what}")

        def is_count(number: object) -> bool:
            return type(number) is int and 0 <= number < 1 << 63

        if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
            raise refuse("dtype, shape and data_offsets expected")
        dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
        if not isinstance(dtype, str) or dtype not in BITS:
            raise refuse(f"unknown dtype {printable(str(dtype))}")
        if not isinstance(shape, list) or not all(map(is_count, shape)):
            raise refuse("a shape is a list of counts")
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(is_count, offsets)):
            raise refuse("data_offsets are two counts")
        bits = math.prod(shape) * BITS[dtype]
        if bits % 8 or offsets[1] - offsets[0] != bits // 8:
            raise refuse(f"{offsets[1] - offsets[0]} bytes do not hold {dtype} {shape}")
        return Entry(name, dtype, tuple(shape), begin + offsets[0], bits // 8)
