"""`nibble.open`: the tensors of a checkpoint, by name, after a check that its files, index and manifest agree."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from . import guess
from . import manifest as manifests
from .container import MappedFile, read_json
from .dequantized import state_name
from .errors import CheckpointError, NoSuchTensorError, printable
from .lazy import LazyTensor

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

# More threads than this read no faster from any disk, and take cores from who trains beside it.
MOST_CHECKERS = 8

# Smaller tensors are checked by whoever asks for them: a thread that hands over to another waits for Python's lock.
WORTH_A_THREAD = 1 << 20

# How far the system is asked to read ahead of the tensor in hand.
READ_AHEAD = 16 << 20

def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Checkpoint(Mapping[str, LazyTensor]):
    """The tensors of a directory or of one safetensors file, by name. Close it, or use it in a `with`."""

    def __init__(
        self, path: str | os.PathLike[str], *, verify: bool | None = None, sparse: bool = False
    ) -> None:
        """With `sparse`, nothing is read ahead but what is asked for: for a reader of parts."""
        self.path = os.fspath(path)
        self.bytes_read = 0
        self.read_ahead = 0 if sparse else READ_AHEAD
        self.manifest: manifests.Manifest | None = None
        self._sparse = sparse
        self._closed = False
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

    @property
    def tensors(self) -> dict[str, LazyTensor]:
        """All of them. Raises CheckpointError once the checkpoint is closed."""
        if self._closed:
            raise CheckpointError(
                f"{self.path}: the checkpoint is closed: use it inside its `with`, or open it without one and close it"
            )
        return self._tensors

    def state_of(self, name: str) -> str | None:
        """The tensor that describes the 4-bit codes of a weight, or None for a weight that is not 4-bit."""
        return state_name(self.tensors, name)

    def __repr__(self) -> str:
        if self._closed:
            return f"<Checkpoint {self.path!r}, closed>"
        size = sum(tensor.size for tensor in self._tensors.values())
        files = f"{len(self._files)} file{'s' if len(self._files) != 1 else ''}"
        checked = "checked" if self.verified else "not checked"
        return f"<Checkpoint {self.path!r}: {len(self._tensors)} tensors, {size} bytes in {files}, {checked}>"

    def __getitem__(self, name: str) -> LazyTensor:
        tensor = self.tensors.get(name)
        if tensor is None:
            raise NoSuchTensorError(self.path, name, self._tensors)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Tensors that were handed out stay valid."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        for file in self._files:
            file.close()
        self._files, self._tensors, self._closed = [], {}, True

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
        placed: dict[str, str] | None = None
        if os.path.isdir(self.path):
            directory = self.path
            names, placed = self._names()
        elif os.path.exists(self.path):
            directory, names = os.path.dirname(self.path) or ".", [os.path.basename(self.path)]
        else:
            raise CheckpointError(f"{self.path}: no such file or directory{guess.of_name(self.path)}")
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
                self._compare_with_manifest(self.manifest)
                if verify:
                    self.manifest.check_side_files(directory, names)
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
                what = guess.of_directory(self.path)
                raise CheckpointError(f"{self.path}: no {SINGLE} and no {INDEX} in it{what}") from None
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

    def _compare_with_manifest(self, manifest: manifests.Manifest) -> None:
        for name in manifest.tensors.keys() - self._tensors.keys():
            raise CheckpointError(f"{self.path}: tensor '{printable(name)}' is missing; {manifests.NAME} lists it")
