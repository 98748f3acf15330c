"""`nibble.open`: the tensors of a checkpoint, lazily, each checked against its digest when first touched."""

import math
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import xxhash

from . import manifest as manifests
from .container import BITS, Entry, MappedFile, read_json
from .errors import CheckpointError, DigestError, printable

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

# Where a reader may begin if there are no digests: anywhere, but many small parts cost more than they save.
UNCHECKED_PIECE = 256 << 10

# More threads than this read no faster from any disk, and take cores from who trains beside it.
MOST_CHECKERS = 8

# Smaller tensors are checked by whoever asks for them: a thread that hands over to another waits for Python's lock.
WORTH_A_THREAD = 1 << 20

# How far the system is asked to read ahead of the tensor in hand.
READ_AHEAD = 16 << 20

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


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LazyTensor:
    """A tensor of a checkpoint. Nothing of its data is read before it is asked for.

    `name`, `dtype` (as safetensors spells it), `shape`, `file`, `offset` and `size` (bytes) are known from the header.
    Slicing the first dimension (`tensor[a:b]`) reads and checks only the pieces that the slice lies in, where the
    manifest has digests of pieces, and the whole tensor where it has not.
    """

    def __init__(self, checkpoint: "Checkpoint", file: MappedFile, entry: Entry, digests: manifests.Digests | None):
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

    def numpy(self):
        """A NumPy array on the map (what is written to it stays in memory)."""
        import numpy

        if self.dtype not in NUMPY:
            raise TypeError(f"{self!r}: NumPy has no such dtype; use torch()")
        return numpy.frombuffer(self.bytes(), dtype=NUMPY[self.dtype]).reshape(self.shape)

    def torch(self, device=None):
        """A tensor on the map itself for the CPU, or straight from the map to another device."""
        tensor = self._as_torch(self.bytes(), self.shape)
        return tensor if device is None else tensor.to(device)

    def __getitem__(self, index):
        """Torch's indexing; a plain slice of the first dimension reads that slice only."""
        if isinstance(index, slice) and self.shape and BITS[self.dtype] >= 8:
            start, stop, step = index.indices(self.shape[0])
            if step == 1:
                stop = max(start, stop)
                row = math.prod(self.shape[1:]) * BITS[self.dtype] // 8
                return self._as_torch(self.bytes(start * row, stop * row), (stop - start, *self.shape[1:]))
        return self.torch()[index]

    def _as_torch(self, data: memoryview, shape):
        import torch

        if self.dtype not in TORCH or not hasattr(torch, TORCH[self.dtype]):
            raise TypeError(f"{self!r}: this torch has no such dtype")
        dtype = getattr(torch, TORCH[self.dtype])
        if not data:
            return torch.empty(tuple(shape), dtype=dtype)
        if (self.offset % dtype.itemsize) and dtype.itemsize > 1:
            # Other writers do not align what follows an odd tensor.
            data = bytearray(data)
        return torch.frombuffer(data, dtype=torch.uint8).view(dtype).view(tuple(shape))

    def check_with(self, pool: ThreadPoolExecutor) -> None:
        """Has the whole tensor checked by another thread; whoever asks for it waits for that."""
        self._check_under_way = pool.submit(self._touch, 0, self.size)

    def will_need(self, start: int, stop: int) -> None:
        """Has the system read some of the bytes ahead; returns at once."""
        self._file.will_need(self.offset + start, stop - start)

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
                self._check_pieces(pieces)
                raise
            read = self.size
        else:
            read = self._check_pieces(pieces)
        self._touched.update(pieces)
        self._checkpoint.count(read)

    def _check_pieces(self, pieces: list[int]) -> int:
        """How many bytes they are."""
        read = 0
        for index in pieces:
            begin = index * self.piece
            size = min(self.piece, self.size - begin)
            self._check(begin, size, self.digests.of_piece(index))
            read += size
        return read

    def _check(self, start: int, size: int, expected: str) -> None:
        begin = self.offset + start
        found = xxhash.xxh3_64_hexdigest(self._file.view[begin : begin + size])
        if found != expected:
            # Bytes that changed under the map are another matter than bytes that were always wrong.
            self._file.check_unchanged()
            raise DigestError(self._file.path, self.name, begin, size, expected, found)


class Checkpoint(Mapping):
    """The tensors of a directory or of one safetensors file, by name. Close it, or use it in a `with`."""

    def __init__(self, path: str | os.PathLike, *, verify: bool | None = None, sparse: bool = False):
        """With `sparse`, nothing is read ahead but what is asked for: for a reader of parts."""
        self.path = os.fspath(path)
        self.bytes_read = 0
        self.read_ahead = 0 if sparse else READ_AHEAD
        self._sparse = sparse
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._files: list[MappedFile] = []
        self._tensors: dict[str, LazyTensor] = {}
        try:
            self._open(verify)
        except BaseException:
            self.close()
            raise

    @property
    def verified(self) -> bool:
        """Whether digests are checked."""
        return self.manifest is not None

    @property
    def files(self) -> list[str]:
        return [file.path for file in self._files]

    def __getitem__(self, name: str) -> LazyTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Tensors that were handed out stay valid."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        for file in self._files:
            file.close()
        self._files, self._tensors = [], {}

    def check_ahead(self) -> None:
        """Begins to check large tensors, in the order of the files, beside whatever comes next."""
        if self.verified and self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=min(MOST_CHECKERS, cores()))
            for tensor in self._tensors.values():
                if tensor.size > WORTH_A_THREAD:
                    tensor.check_with(self._pool)

    def count(self, size: int) -> None:
        with self._lock:
            self.bytes_read += size

    def check_unchanged(self) -> None:
        """Raises CheckpointError if a file was written to since it was opened."""
        for file in self._files:
            file.check_unchanged()

    def trust(self) -> None:
        """Takes every tensor as checked: others have done it."""
        for tensor in self._tensors.values():
            tensor.trust()

    def _open(self, verify: bool | None) -> None:
        if os.path.isdir(self.path):
            directory, names, placed = self.path, *self._names()
        elif os.path.exists(self.path):
            directory, names, placed = os.path.dirname(self.path) or ".", [os.path.basename(self.path)], None
        else:
            raise CheckpointError(f"{self.path}: no such file or directory")
        self.manifest = manifests.read(directory) if verify is not False else None
        if self.manifest is None and verify is not False:
            message = f"{self.path}: no {manifests.NAME}, so damage would not be noticed"
            if verify:
                raise CheckpointError(f"{message}; `nibble convert` writes a checkpoint with one")
            warnings.warn(message, stacklevel=4)
        for name in names:
            file = MappedFile(os.path.join(directory, name), sparse=self._sparse)
            self._files.append(file)
            if self.manifest is not None:
                self.manifest.check_size(file.path, file.size)
            for entry in file.entries.values():
                if entry.name in self._tensors:
                    other = self._tensors[entry.name].file
                    raise CheckpointError(f"{file.path}: tensor '{printable(entry.name)}' is in {other} too")
                digests = self.manifest.digests(file.path, entry) if self.manifest is not None else None
                self._tensors[entry.name] = LazyTensor(self, file, entry, digests)
        if placed is not None:
            self._compare_with_index(placed)
        if self.manifest is not None:
            if os.path.isdir(self.path):
                self._compare_with_manifest()
            for name in self.manifest.altered(directory, ("config.json", INDEX)):
                warnings.warn(f"{os.path.join(directory, name)}: not what was written with the weights", stacklevel=4)

    def _names(self) -> tuple[list[str], dict[str, str] | None]:
        """The files that the index lists, each once, and the file of each tensor."""
        path = os.path.join(self.path, INDEX)
        try:
            with open(path, "rb") as file:
                index = read_json(file.read(), path)
        except FileNotFoundError:
            if not os.path.exists(os.path.join(self.path, SINGLE)):
                raise CheckpointError(f"{self.path}: no {SINGLE} and no {INDEX} in it") from None
            return [SINGLE], None
        except OSError as error:
            raise CheckpointError(f"{path}: {error.strerror}") from None
        placed = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(placed, dict) or not all(isinstance(name, str) for name in placed.values()):
            raise CheckpointError(f"{path}: no weight_map of names")
        for name in (names := sorted(set(placed.values()))):
            if name in ("", ".", "..") or os.path.basename(name) != name or "\0" in name or "\\" in name:
                raise CheckpointError(f"{path}: '{printable(name)}' is not the name of a file beside it")
        return names, placed

    def _compare_with_index(self, placed: dict[str, str]) -> None:
        for name, file in placed.items():
            if name not in self._tensors:
                raise CheckpointError(f"{self.path}: tensor '{printable(name)}' is in {INDEX} and not in {file}")
            if os.path.basename(self._tensors[name].file) != file:
                raise CheckpointError(
                    f"{self._tensors[name].file}: has tensor '{printable(name)}', which {INDEX} places in {file}"
                )
        for name in self._tensors.keys() - placed.keys():
            raise CheckpointError(f"{self._tensors[name].file}: tensor '{printable(name)}' is not in {INDEX}")

    def _compare_with_manifest(self) -> None:
        for name in self.manifest.tensors.keys() - self._tensors.keys():
            raise CheckpointError(f"{self.path}: tensor '{printable(name)}' is missing; {manifests.NAME} lists it")
